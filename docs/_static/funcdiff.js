// What scrolls can be reached by keyboard.
for (const box of document.querySelectorAll("pre, .output_html, .table-wrapper, .derivative-atlas, div.math")) {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
}
