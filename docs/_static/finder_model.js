// The recipe finder's answers, from the package's cost formulas. docs/_tools/finder/model.py says the same in Python; a
// test in the browser holds the two together.
(() => {
  const model = JSON.parse(document.getElementById("finder-model").textContent);
  const PRODUCT = "Hessian-vector product";
  const pairs = (n) => n * (n + 1) / 2;
  const one = (s) => ({ ...s, inputs: 1 });

  // Of a recipe: FLOPs, numbers written, graphs kept, directions carried at once.
  const FORMULAS = {
    jacobian_batched_grad: {
      flops: (s) => s.flops + s.outputs * s.slope,
      elements: (s) => s.elements * (1 + s.outputs),
      graphs: () => 1,
      directions: (s) => s.outputs,
    },
    jacobian_forward: {
      flops: (s) => s.flops + s.wasted + s.inputs * s.slope,
      elements: (s) => s.elements * (1 + s.inputs),
      graphs: () => 0,
      directions: (s) => 1 + s.inputs,
    },
    jacobian_taylor: {
      flops: (s) => s.flops + s.inputs * s.slope,
      elements: (s) => s.elements * (1 + s.inputs),
      graphs: () => 0,
      directions: (s) => 1 + s.inputs,
    },
    hessian_taylor: {
      flops: (s) => s.flops + s.inputs * s.slope + pairs(s.inputs) * s.curved,
      elements: (s) => s.elements * (1 + s.inputs) + pairs(s.inputs) * s.curvedElements,
      graphs: () => 0,
      directions: (s) => 1 + s.inputs + pairs(s.inputs),
    },
    hessian_forward_over_reverse: {
      flops: (s) => s.flops + s.outputs * s.slope + s.wasted * (1 + s.outputs)
        + s.inputs * (s.slope + s.outputs * s.bend),
      elements: (s) => s.elements * (1 + s.inputs) * (1 + s.outputs),
      graphs: (s) => 1 + s.inputs,
      directions: (s) => (1 + s.inputs) * (1 + s.outputs),
    },
    hessian_forward_over_forward: {
      flops: (s) => s.flops + s.wasted + s.inputs * (s.flops + s.wasted + s.slope + s.inputs * s.bend),
      elements: (s) => s.elements * (1 + s.inputs) ** 2,
      graphs: () => 0,
      directions: (s) => (1 + s.inputs) ** 2,
    },
    hessian_double_backward: {
      flops: (s) => s.flops + s.outputs * s.slope + s.inputs * s.outputs * (s.slope + s.outputs * s.bend),
      elements: (s) => s.elements * (1 + s.outputs) * (1 + s.inputs * s.outputs),
      graphs: (s) => 1 + s.outputs,
      directions: (s) => s.outputs * (1 + s.inputs * s.outputs),
    },
    hessian_diagonal: {
      flops: (s) => s.flops + s.inputs * (s.slope + s.curved),
      elements: (s) => s.elements * (1 + s.inputs) + s.inputs * s.curvedElements,
      graphs: () => 0,
      directions: (s) => 1 + 2 * s.inputs,
    },
    laplacian: {
      flops: (s) => s.flops + s.inputs * s.slope + s.curved,
      elements: (s) => s.elements * (1 + s.inputs) + s.curvedElements,
      graphs: () => 0,
      directions: (s) => 2 + s.inputs,
    },
    hvp_double_backward: {
      flops: (s) => FORMULAS.hessian_double_backward.flops(one(s)),
      elements: (s) => FORMULAS.hessian_double_backward.elements(one(s)),
      graphs: () => 2,
      directions: () => 2,
    },
    hvp_forward_over_reverse: {
      flops: (s) => FORMULAS.hessian_forward_over_reverse.flops(one(s)),
      elements: (s) => FORMULAS.hessian_forward_over_reverse.elements(one(s)),
      graphs: () => 2,
      directions: () => 4,
    },
  };

  // What the package would count in one pass of the network.
  function sketch(q, putRight) {
    const [wide, more, straightWide, straightMore, calls, general] = model.norms[q.norm][Number(putRight)];
    const first = 2 * q.inputs * q.width;
    const flops = first + 2 * (q.layers - 1) * q.width ** 2 + 2 * q.width * q.outputs;
    const elements = q.layers * ((2 + wide) * q.width + more) + q.outputs;
    return {
      inputs: q.inputs, outputs: q.need === PRODUCT ? 1 : q.outputs,
      flops, slope: flops, bend: flops, curved: flops - first, wasted: flops,
      elements, curvedElements: elements - q.width * (1 + straightWide) - straightMore,
      calls: q.layers * ((q.norm === "batch norm" ? 2 : 4) + calls) + 3,
      general: q.layers * general,
    };
  }

  function candidate(q, name) {
    const recipe = model.recipes[name], formula = FORMULAS[name], s = sketch(q, recipe.putRight);
    const rows = q.rows || 1;
    const flops = rows * formula.flops(s), elements = rows * formula.elements(s);
    const results = rows * s.outputs * s.inputs ** recipe.degree;
    const amounts = [1, s.calls, s.general, flops, elements, results, s.flops], rates = recipe.rates[Number(rows > 1)];
    const held = formula.graphs(s) * s.elements + 4 * formula.directions(s) * q.width;
    return {
      recipe: q.rows && q.need !== PRODUCT ? model.inside[name] ?? name : name,
      flops, result: 4 * results,
      peak: 4 * (results + rows * held + (recipe.identity ? s.inputs ** 2 : 0)),
      seconds: amounts.reduce((sum, amount, i) => sum + rates[i] * amount, 0),
    };
  }

  // The recipe to import: where a norm would have to be put right, the automatic one, which does so.
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
