// Light or dark: the system's choice until the user makes one, which is kept in this browser.

const KEPT = "luthier.theme";
export const THEME_CHANGED = "luthier:theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  const chosen = localStorage.getItem(KEPT);
  return chosen === null ? system.matches : chosen === "dark";
}

export function applyTheme(): void {
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  window.dispatchEvent(new Event(THEME_CHANGED));
}

export function switchTheme(): void {
  localStorage.setItem(KEPT, isDark() ? "light" : "dark");
  applyTheme();
}

system.addEventListener("change", applyTheme);
