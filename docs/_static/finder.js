// The recipe finder's form: it answers while you type.
(() => {
  const PRODUCT = "Hessian-vector product";
  // A result of more bytes is better multiplied with than computed.
  const LARGE = 16 * 2 ** 30, OPERATORS = { Hessian: "hvp_operator", Jacobian: "jacobian_operator" };
  const { tutorials } = JSON.parse(document.getElementById("finder-model").textContent);
  const finder = document.getElementById("finder");
  const form = finder.querySelector("form");
  const part = (name) => finder.querySelector(`.finder-${name}`);

  // In the largest unit that is reached; units are given smallest first.
  function scaled(value, units) {
    const [size, unit] = units.findLast(([least]) => value >= least) ?? units[0];
    return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  const decimal = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"].map((unit, i) => [1e3 ** i, unit]);
  const binary = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].map((unit, i) => [2 ** (10 * i), unit]);
  const flops = (value) => scaled(value, decimal);
  const bytes = (value) => scaled(value, binary);
  const time = (value) => scaled(value, [[1e-6, "µs"], [1e-3, "ms"], [1, "s"], [3600, "h"], [86400, "days"]]);

  function element(tag, ...content) {
    const made = document.createElement(tag);
    made.append(...content);
    return made;
  }
  // A name that may break where it has an underscore.
  function named(name) {
    const made = element("code");
    name.split(/(?<=_)/).forEach((piece, i) => made.append(...(i ? [element("wbr")] : []), piece));
    return made;
  }
  const listed = (names) => names.flatMap((name, i) => [...(i ? [", "] : []), named(name)]);

  function question() {
    const fields = form.elements, size = (name) => Number(fields[name].value);
    return {
      need: fields.need.value, inputs: size("inputs"), outputs: size("outputs"),
      rows: fields.byRow.checked ? size("rows") : 0,
      width: size("width"), layers: size("layers"), norm: fields.norm.value,
    };
  }

  function show() {
    form.elements.rows.disabled = !form.elements.byRow.checked;
    finder.classList.toggle("unanswered", !form.checkValidity());
    if (!form.checkValidity()) {
      part("answer").textContent = "Enter whole numbers from 1 to 1,000,000, and at most 100 layers.";
      return;
    }
    const q = question(), { need, take, recipe, candidates, code, why, wrong } = window.funcdiffFinder(q);
    const best = candidates[0];
    part("answer").replaceChildren(
      "Call ", named(take), ...(take === recipe ? [`. ${why}.`] : [". It chooses ", named(recipe), ` here: ${why}.`]),
      ` The estimate is ${flops(best.flops)} and ${bytes(best.peak)} of memory, of which ${bytes(best.result)} is the result.`,
      ...(best.result > LARGE && need in OPERATORS
        ? [" The result rarely fits in memory: use ", named(OPERATORS[need]), ", which multiplies by it."] : []),
    );
    part("code").textContent = code;
    part("rows").replaceChildren(...candidates.map((found) => {
      const ratio = `${Number((found.seconds / best.seconds).toPrecision(3))}`;
      const cells = [flops(found.flops), bytes(found.peak), time(found.seconds), ratio];
      const row = element("tr", element("th", named(found.recipe)), ...cells.map((cell) => element("td", cell)));
      row.firstChild.scope = "row";
      return row;
    }));
    const notes = need === PRODUCT ? ["The code takes the Hessian of the sum of the network's outputs. "] : [];
    if (wrong.together.length) {
      notes.push(
        `Called by name, some recipes differentiate a ${q.norm} wrongly, without an error. With respect to its weight `,
        "and its input together: ", ...listed(wrong.together), ". With respect to its input alone: ", ...listed(wrong.input),
        ". The automatic functions avoid this: they write the norm as simpler operations. By name, use ",
        ...listed(candidates.map((found) => found.recipe).filter((name) => !wrong.together.includes(name))), ".",
      );
    } else notes.push("None of these recipes is known to be wrong on such a network.");
    if (q.norm === "batch norm") {
      notes.push(
        " This holds after ", named("net.eval()"), ". In training mode, batch norm mixes the rows of a batch. ",
        "It also needs a batch: the code passes each row as a batch of one.",
      );
    }
    part("wrong").replaceChildren(...notes);
    const [page, title] = tutorials[q.need][wrong.together.length ? "norm" : q.rows ? "rows" : "point"];
    part("tutorial").href = page;
    part("tutorial").textContent = title;
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
  finder.hidden = false;
})();
