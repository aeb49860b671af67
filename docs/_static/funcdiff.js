// What scrolls can be reached by keyboard.
for (const box of document.querySelectorAll("pre, .output_html, .table-wrapper, div.math")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
