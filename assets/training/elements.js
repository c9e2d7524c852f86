// Makes elements of the page.

// An element with properties and children; `data` is its dataset.
export function element(tag, { data = {}, ...properties } = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made.dataset, data);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

export const button = (name, action, properties = {}) => {
  const made = element("button", { type: "button", textContent: name, ...properties });
  made.addEventListener("click", action);
  return made;
};

// The text of an element of SVG; attributes that are null are left out.
export const svg = (tag, attributes, content = "") => {
  const written = Object.entries(attributes).filter(([, value]) => value !== null && value !== undefined);
  return `<${tag} ${written.map(([name, value]) => `${name}="${value}"`).join(" ")}>${content}</${tag}>`;
};

export const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
