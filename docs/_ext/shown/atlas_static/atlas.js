// Filters the derivative atlas by operation, recipe and verdict. Without script the whole table stays readable.
const region = document.querySelector(".derivative-atlas");
const rows = [...region.querySelectorAll("tbody tr")];
const named = [...region.querySelectorAll("[data-recipe]")].map((span) => span.dataset.recipe);

function choice(id, ...words) {
  const select = Object.assign(document.createElement("select"), { id });
  for (const word of words) select.add(new Option(word, word));
  return select;
}

const search = Object.assign(document.createElement("input"), { type: "search", id: "atlas-search" });
const recipe = choice("atlas-recipe", "any recipe", ...[...new Set(named)].sort());
const found = choice("atlas-found", "anything", "wrong", "refuses", "undecided", "right");
const count = Object.assign(document.createElement("output"), { htmlFor: "atlas-search atlas-recipe atlas-found" });

// Every recipe that a row does not name is right there, unless it says that none is.
function has(row) {
  if (found.value === "anything") return true;
  const any = recipe.value === "any recipe";
  const spans = [...row.querySelectorAll("[data-recipe]")].filter((span) => any || span.textContent === recipe.value);
  if (found.value === "right") return row.cells[3].textContent !== "none" && (any || spans.length === 0);
  return spans.some((span) => span.classList.contains(`atlas-${found.value}`));
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const name = row.cells[0].textContent.toLowerCase();
    row.hidden = !(words.every((word) => name.includes(word)) && has(row));
    if (!row.hidden) shown += 1;
  }
  count.textContent = `${shown} of ${rows.length}`;
}

function labelled(text, field) {
  const label = document.createElement("label");
  label.append(text, " ", field);
  return label;
}

const form = document.createElement("form");
form.className = "atlas-filter";
form.setAttribute("role", "search");
form.append(labelled("Operation", search), labelled("where", recipe), labelled("is", found), count);
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
region.before(form);
filter();
