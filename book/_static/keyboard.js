/* For readers without a mouse: Escape puts a shown definition away, until another term is pointed at or reached
   (WCAG 1.4.13), and the button of the theme, which lets go of the focus when it is pressed, gets it back. */
"use strict";

document.addEventListener("keydown", event => {
  if (event.key === "Escape") document.documentElement.dataset.quiet = "";
});
for (const arrival of ["mouseover", "focusin"]) {
  document.addEventListener(arrival, event => {
    if (event.target.closest?.("a[data-definition]")) delete document.documentElement.dataset.quiet;
  });
}
document.addEventListener("click", event => {
  const button = event.target.closest?.(".theme-switch-button");
  if (button) setTimeout(() => button.focus());
});
