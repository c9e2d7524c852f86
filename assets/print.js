// On paper every fold is open and the ink is black, whatever the screen shows; afterwards all is as it was.
// The folds of the training in the page are controls: what the reader has not opened is not printed.
// Of a prediction the right option is open and no other: its folds close each other.
const page = document.documentElement;
let theme, folds, chosen;
addEventListener("beforeprint", () => {
  theme = page.dataset.theme;
  page.dataset.theme = "light";
  folds = document.querySelectorAll("details:not([open], .bnb-prediction > *, .bnb-laboratory *, .bnb-training *), [data-right]:not([open])");
  chosen = document.querySelectorAll(".bnb-prediction > [open]");
  for (const fold of folds) fold.open = true;
});
addEventListener("afterprint", () => {
  page.dataset.theme = theme;
  for (const fold of folds) fold.open = false;
  for (const fold of chosen) fold.open = true;
});
