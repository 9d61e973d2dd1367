// What the pages' scripts share: signs for characters that cannot be seen, and a way to make elements.

const WORDS = { " ": "␣ space", "\n": "⏎ line end", "\t": "⇥ tab" };

// What stands for a character: a sign where it cannot be seen, else itself.
function sign(char) {
  if (WORDS[char]) {
    return WORDS[char][0];
  }
  if (/[\p{C}\p{Z}]/u.test(char)) {
    return "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  }
  return char;
}

// An element. Texts go in as texts, never as HTML.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
