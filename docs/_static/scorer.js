// Ranks what a search found: answers (guides, tutorials) above what only mentions a name, an exact name above all,
// lists last. Sphinx calls `score` with each result; its own numbers are 5 for a word of the text, 15 for one of the title.
var Scorer = {
  objNameMatch: 30, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,

  score: ([page, title, , , score]) => {
    if (/sg_execution_times|^genindex|^tutorials\/index/.test(page)) return score - 30;
    const words = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().split(/[\s_]+/);
    const named = words.filter(word => word && title.toLowerCase().includes(word)).length;
    return score + 4 * named + (/^(guides|tutorials)\//.test(page) ? 6 : 0);
  },
};
