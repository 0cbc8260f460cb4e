// Before anything is drawn: the theme that was chosen here, else that of the system.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("ether-theme"); } catch { /* a browser that stores nothing */ }
  const asked = new URLSearchParams(location.hash.split("?")[1] || "").get("t");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = asked || chosen || (dark ? "dark" : "light");
})();
