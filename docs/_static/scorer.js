const titlesOf = page => Object.entries(Search._index.alltitles).flatMap(([section, places]) =>
  places.filter(([file]) => Search._index.docnames[file] === page).map(([, id]) => [section, `#${id}`]));

// Sphinx names an entry after its page. With its section's name it reads, and counts once, as that section's own result.
const sectionOf = (page, anchor) => titlesOf(page).filter(([, id]) => id === anchor).map(([name]) => ` > ${name}`).join("");

// Ranks what a search found: answers (guides, tutorials) above what only mentions a name, an exact name above all,
// lists last. First come the entries of the index, and pages with a section whose title, as an error message, contains
// the query. Sphinx calls `score` with each result; its own numbers are 5 for a word of the text, 15 for one of the
// title, up to 100 for an entry of the index.
var Scorer = {
  objNameMatch: 30, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,

  score: result => {
    const [page, title, anchor, , score, , kind] = result;
    if (/sg_execution_times|^genindex|^tutorials\/index/.test(page)) return score - 30;
    const query = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().trim();
    const words = query.split(/[\s_]+/);
    const named = words.filter(word => word && title.toLowerCase().includes(word)).length;
    const quoted = words.length > 2 && titlesOf(page).some(([section]) => section.toLowerCase().includes(query));
    if (kind === "index" && anchor) result[1] += sectionOf(page, anchor);
    return score + 4 * named + (/^(guides|tutorials)\//.test(page) ? 6 : 0) + (quoted ? 40 : 0);
  },
};
