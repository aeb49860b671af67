// What scrolls can be reached by keyboard.
for (const box of document.querySelectorAll("pre, .output_html, .table-wrapper, .derivative-atlas, div.math")) {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
}

// The current page is in sight in the sidebar, however long the list above it.
{
  const list = document.querySelector(".sidebar-scroll"), page = list?.querySelector(".current-page > .reference");
  const under = page ? page.getBoundingClientRect().bottom - list.getBoundingClientRect().bottom : 0;
  if (under > 0) list.scrollTo({ top: list.scrollTop + under + list.clientHeight / 3, behavior: "instant" });
}
