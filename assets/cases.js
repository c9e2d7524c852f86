// Opens the case that the address of the page names, in browsers that do not open a fold around the target of a link.
const openCase = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target?.closest(".bnb-cases details");
  if (!fold || fold.open) return;
  fold.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", openCase);
addEventListener("DOMContentLoaded", openCase);
