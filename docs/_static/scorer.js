// Ranks what a search found: answers (guides, tutorials) above what only mentions a name, an exact name above all,
// lists last. Two words or more of the query in the title of one section count as well. First come the entries of the
// index, and pages with a section whose title, as an error message, contains the query. Sphinx calls
// `score` with each result; its own numbers are 5 for a word of the text, 15 for one of the title, up to 100 for an
// entry of the index.
var Scorer = {
  objNameMatch: 30, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,

  score: ([page, title, , , score]) => {
    if (/sg_execution_times|^genindex|^tutorials\/(\w+\/)?index/.test(page)) return score - 30;
    const query = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().trim();
    const words = query.split(/[\s_]+/);
    const named = words.filter(word => word && title.toLowerCase().includes(word)).length;
    const { docnames, alltitles } = Search._index;
    const quoted = words.length > 2 && Object.entries(alltitles).some(([section, places]) =>
      section.toLowerCase().includes(query) && places.some(([file]) => docnames[file] === page));
    const long = words.filter(word => word.length > 3);
    const sectioned = Math.max(0, ...Object.entries(alltitles).map(([section, places]) =>
      places.some(([file]) => docnames[file] === page)
        ? long.filter(word => section.toLowerCase().includes(word)).length : 0));
    return score + 4 * named + 6 * Math.max(0, sectioned - 1) + (/^(guides|tutorials)\//.test(page) ? 6 : 0)
      + (quoted ? 40 : 0);
  },
};
