// Filters the derivative atlas: by name, and by what was found. Without script the whole table stays readable.
const region = document.querySelector(".derivative-atlas");
const rows = [...region.querySelectorAll("tbody tr")];

const search = Object.assign(document.createElement("input"), { type: "search", id: "atlas-search" });
const found = Object.assign(document.createElement("select"), { id: "atlas-found" });
for (const word of ["anything", "wrong", "refuses", "undecided"]) found.add(new Option(word, word));
const count = Object.assign(document.createElement("output"), { htmlFor: "atlas-search atlas-found" });

function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const name = row.cells[0].textContent.toLowerCase();
    const kept = words.every((word) => name.includes(word)) &&
      (found.value === "anything" || row.querySelector(`.atlas-${found.value}`));
    row.hidden = !kept;
    if (kept) shown += 1;
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
form.append(labelled("Operation", search), labelled("with a verdict of", found), count);
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
region.before(form);
filter();
