// The grid of verdicts: filters, and what is said of a cell. Without a script the whole grid and its texts are there.
const region = document.querySelector(".atlas-grid");
const told = document.querySelector(".atlas-told");
const heads = [...region.querySelectorAll("thead th[scope=col]")];
// Headers of a single column stand in the first row of the head: put all in the order of the columns.
heads.sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
const recipes = heads.map((head) => head.dataset.recipe);
const rows = [...region.querySelectorAll("tbody:not(.atlas-totals) tr:not(.atlas-kind)")];
document.querySelector(".atlas-notes").open = false;

function choice(id, first, options) {
  const select = Object.assign(document.createElement("select"), { id });
  select.add(new Option(first, ""));
  for (const option of options) select.add(new Option(option, option));
  return select;
}

const search = Object.assign(document.createElement("input"), { type: "search", id: "atlas-search" });
const recipe = choice("atlas-recipe", "any recipe", recipes);
const found = choice("atlas-found", "any verdict", ["right", "wrong", "refuses", "undecided"]);
const count = Object.assign(document.createElement("output"), { htmlFor: "atlas-search atlas-recipe atlas-found" });

// The verdict in each column; a cell may stand for several recipes.
function verdicts(row) {
  return [...row.cells].slice(1).flatMap((cell) => Array(cell.colSpan).fill(cell.classList[0]));
}

function has(row) {
  if (!found.value) return true;
  const all = verdicts(row), name = `atlas-${found.value}`;
  if (recipe.value) return all[recipes.indexOf(recipe.value)] === name;
  return found.value === "right" ? all.every((each) => each === name) : all.includes(name);
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const name = row.cells[0].textContent.toLowerCase();
    row.hidden = !(words.every((word) => name.includes(word)) && has(row));
    if (!row.hidden) shown += 1;
  }
  count.textContent = `${shown} of ${rows.length} rows`;
}

// What is said of a cell, or of a whole row.
function tell(row, cell) {
  const link = row.querySelector("th a");
  if (!link || (cell && !cell.dataset.note)) return;
  const note = document.querySelector(link.getAttribute("href"));
  const parts = cell ? [note.children[0], note.children[1 + Number(cell.dataset.note)]] : [...note.children];
  told.replaceChildren(...parts.flatMap((part) => [part.cloneNode(true), " "]));
  told.hidden = false;
}

region.addEventListener("focusin", ({ target }) => target.matches("a") && tell(target.closest("tr")));
region.addEventListener("click", (event) => {
  if (event.target.closest("a")) event.preventDefault();
  const row = event.target.closest("tbody tr");
  if (row) tell(row, event.target.closest("td"));
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") told.hidden = true; });

function labelled(text, field) {
  const label = document.createElement("label");
  label.append(text, " ", field);
  return label;
}

const form = document.createElement("form");
form.className = "atlas-filter";
form.setAttribute("role", "search");
form.append(labelled("Show", search), labelled("where", recipe), labelled("is", found), count);
search.placeholder = "part of a name";
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
document.querySelector(".atlas-legend").before(form);
filter();
