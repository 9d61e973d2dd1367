// A live page in a frame is light or dark as the site is, whichever button its reader presses.
function followTheme() {
  const theme = document.documentElement.dataset.theme;
  for (const frame of document.querySelectorAll(".live iframe")) {
    // Before a frame is loaded, and in a site that was opened as files, there is nothing to see inside.
    frame.contentDocument?.documentElement?.style.setProperty("color-scheme", theme);
  }
}

new MutationObserver(followTheme).observe(document.documentElement, { attributeFilter: ["data-theme"] });
// A frame's own event does not rise, but it can be caught on its way down.
document.addEventListener("load", followTheme, true);
