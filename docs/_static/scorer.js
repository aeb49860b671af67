// Ranks what a search found: answers (guides, tutorials) above what only mentions a name, an exact name above all,
// lists last. First come the entries of the index, and pages with a section whose title, as an error message, contains
// the query. Sphinx calls `score` with each result; its own numbers are 5 for a word of the text, 15 for one of the
// title, up to 100 for an entry of the index.
var Scorer = {
  objNameMatch: 30, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,

  score: ([page, title, , , score]) => {
    if (/sg_execution_times|^genindex|^tutorials\/index/.test(page)) return score - 30;
    const query = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().trim();
    const words = query.split(/[\s_]+/);
    const named = words.filter(word => word && title.toLowerCase().includes(word)).length;
    const { docnames, alltitles } = Search._index;
    const quoted = words.length > 2 && Object.entries(alltitles).some(([section, places]) =>
      section.toLowerCase().includes(query) && places.some(([file]) => docnames[file] === page));
    return score + 4 * named + (/^(guides|tutorials)\//.test(page) ? 6 : 0) + (quoted ? 40 : 0);
  },
};
