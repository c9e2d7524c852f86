// On paper every fold is open and the ink is black, whatever the screen shows; afterwards all is as it was.
const page = document.documentElement;
let theme, folds;
addEventListener("beforeprint", () => {
  theme = page.dataset.theme;
  page.dataset.theme = "light";
  folds = document.querySelectorAll("details:not([open])");
  for (const fold of folds) fold.open = true;
});
addEventListener("afterprint", () => {
  page.dataset.theme = theme;
  for (const fold of folds) fold.open = false;
});
