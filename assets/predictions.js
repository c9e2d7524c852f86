// Predictions are folds that work by themselves. This says the verdict to screen readers and adds "Choose again".
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".bnb-prediction")) {
    const said = document.createElement("p");
    said.className = "bnb-said";
    said.role = "status";
    const again = document.createElement("button");
    again.className = "bnb-again";
    again.type = "button";
    again.textContent = "Choose again";
    again.hidden = true;
    box.append(again, said);
    const options = [...box.querySelectorAll("details")];
    for (const option of options) {
      option.addEventListener("toggle", () => {
        again.hidden = !options.some((each) => each.open);
        if (again.hidden) said.textContent = "";
      });
      // A click is also what the keyboard makes of Enter and Space; print.js opens folds without one.
      option.firstElementChild.addEventListener("click", () => {
        if (!option.open) said.textContent = option.lastElementChild.textContent;
      });
    }
    again.addEventListener("click", () => {
      for (const option of options) option.open = false;
      options[0].firstElementChild.focus();
    });
  }
});
