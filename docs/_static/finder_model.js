// The recipe finder's answers, by the package's cost formulas: docs/_tools/finder/script.py writes them into the page.
(() => {
  const model = JSON.parse(document.getElementById("finder-model").textContent);
  const PRODUCT = "Hessian-vector product";

  function candidate(q, name) {
    const recipe = model.recipes[name], formulas = funcdiffFormulas.recipes[name], rows = q.rows || 1;
    const s = funcdiffFormulas.sketch(q, model.norms[q.norm][Number(recipe.safe)], q.need === PRODUCT ? 1 : q.outputs);
    const counts = Object.fromEntries(Object.entries(formulas).map(([part, formula]) => [part, formula(s)]));
    const known = { ...recipe, rates: recipe.rates[Number(rows > 1)] };
    const { flops, results, seconds, held } = funcdiffFormulas.cost(s, rows, q.width, known, counts);
    return {
      recipe: q.rows && q.need !== PRODUCT ? model.inside[name] ?? name : name,
      flops, result: 4 * results, peak: 4 * (results + held), seconds,
    };
  }

  // The recipe to import: where a norm would have to be replaced by a safe one, the automatic one, which does so.
  function imported(q, recipe) {
    return q.norm !== "none" && model.automatic.includes(recipe) ? recipe.split("_")[0] : recipe;
  }

  function code(q, recipe) {
    const name = imported(q, recipe), kind = name.split("_")[0], names = [name];
    const x = q.rows ? "X" : "x", lines = [];
    let call;
    if (q.need === PRODUCT) {
      const point = q.norm === "batch norm" && !q.rows ? "x[None]" : x;
      lines.push(`${x.replace("x", "v").replace("X", "V")} = torch.randn_like(${x})`);
      call = `${name}(lambda ${x}: net(${point}).sum(), (${x},), (${q.rows ? "V" : "v"},))`;
    } else {
      const func = q.norm === "batch norm" ? "lambda x: net(x[None])[0]" : "net";
      if (!q.rows) call = `${name}(${func})(x)`;
      else if (name === "laplacian" || name === "hessian_diagonal") call = `torch.func.vmap(${name}(${func}))(X)`;
      else {
        names.unshift(`batch_${kind}`);
        call = `batch_${kind}(${func}, ${kind}=${name})(X)`;
      }
      const whole = kind === "hessian" && name !== "hessian_diagonal";
      if (whole && q.need !== "Hessian") call += ".diagonal(dim1=-2, dim2=-1)";
      if (kind === "hessian" && q.need === "Laplacian") call += ".sum(-1)";
    }
    const { inputs: n, outputs: m } = q;
    const shape = {
      "Jacobian": [m, n], "Hessian": [m, n, n], [PRODUCT]: [n], "Hessian diagonal": [m, n], "Laplacian": [m],
    }[q.need];
    const sizes = (list) => `(${list.join(", ")}${list.length === 1 ? "," : ""})`;
    const rows = q.rows ? [q.rows] : [];
    return [
      "import torch",
      `from funcdiff import ${names.join(", ")}`,
      "",
      "net.eval()  # your network",
      `${x} = torch.randn${sizes([...rows, n])}  # your input`,
      ...lines,
      `result = ${call}  # of shape ${sizes([...rows, ...shape])}`,
    ].join("\n");
  }

  // The candidates by predicted time, what to take and its code, and what is wrong on such a network.
  function answer(q) {
    const candidates = model.needs[q.need].map((name) => candidate(q, name)).sort((a, b) => a.seconds - b.seconds);
    const best = candidates[0].recipe;
    return { candidates, take: imported(q, best), code: code(q, best), wrong: model.wrong[q.need][q.norm] };
  }
  window.funcdiffFinder = answer;
})();
