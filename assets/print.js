// On paper every fold is open and the ink is black, whatever the screen shows; afterwards all is as it was.
// Of a prediction the right option is open and no other: its folds close each other. The look inside a network that
// trains stays as the reader left it.
const page = document.documentElement;
let theme, folds, chosen;
addEventListener("beforeprint", () => {
  theme = page.dataset.theme;
  page.dataset.theme = "light";
  folds = document.querySelectorAll("details:not([open], .bnb-prediction > *, .bnb-inside), [data-right]:not([open])");
  chosen = document.querySelectorAll(".bnb-prediction > [open]");
  for (const fold of folds) fold.open = true;
});
addEventListener("afterprint", () => {
  page.dataset.theme = theme;
  for (const fold of folds) fold.open = false;
  for (const fold of chosen) fold.open = true;
});
