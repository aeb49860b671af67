// The recipe finder's answers. The cost formulas and all templates come from docs/_tools/finder, in the page itself.
(() => {
  const model = JSON.parse(document.getElementById("finder-model").textContent);
  const PRODUCT = "Hessian-vector product", GRADIENT = "torch.func.grad";

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

  function filled(template, values) {
    return template.replace(/{([\w ]+)}/g, (_, name) => values[name]);
  }

  function code(q, need, recipe) {
    const rows = Number(q.rows > 0), batchNorm = q.norm === "batch norm";
    const wrong = model.wrong[q.need][q.norm][Number(q.outputs > 1)].together.includes(recipe);
    const template = model.templates[need][rows] + (wrong ? model.notByName : model.named[need][rows]);
    const f = batchNorm ? "f" : "net";
    return filled(template, {
      f, recipe, norm: q.norm, n: q.inputs, m: q.outputs, B: q.rows, grad: `lambda x: ${f}(x).squeeze()`,
      "one row": batchNorm && !(rows && need === PRODUCT) ? model.oneRow : "",
    });
  }

  // As `answer` in docs/_tools/finder/answers.py, with the reason and what is wrong on such a network.
  window.funcdiffFinder = (q) => {
    const gradient = q.need === "Jacobian" && q.outputs === 1, need = gradient ? "Gradient" : q.need;
    const names = [...(gradient ? [GRADIENT] : []), ...model.needs[q.need]];
    const candidates = names.map((name) => candidate(q, name)).sort((a, b) => a.seconds - b.seconds);
    const recipe = model.oneRecipe[need] ?? candidates[0].recipe;
    candidates.sort((a, b) => (a.recipe !== recipe) - (b.recipe !== recipe));
    const pairs = (q.inputs * (q.inputs + 1)) / 2;
    return {
      need, take: model.automatic[need][Number(q.rows > 0)], recipe, candidates, code: code(q, need, recipe),
      why: filled(model.why[recipe], { pairs }), wrong: model.wrong[q.need][q.norm][Number(q.outputs > 1)],
    };
  };
})();
