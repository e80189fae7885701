// Numbers, times and sizes as people read them.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

const whole = new Intl.NumberFormat("en");

export function count(value: number): string {
  return whole.format(value);
}

/** A measured value: four significant digits, tiny and huge ones by their exponent. */
export function value(number: number | null | undefined): string {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  if (Number.isInteger(number)) return Math.abs(number) < 1e9 ? count(number) : number.toExponential(3);
  const size = Math.abs(number);
  if (size < 1e-3 || size >= 1e6) return number.toExponential(2).replace(/\.?0+e/, "e");
  if (size >= 1000) return whole.format(Math.round(number));
  return String(Number(number.toPrecision(4)));
}

export function bytes(size: number): string {
  if (size < 1000) return `${size} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let left = size;
  let unit = -1;
  while (left >= 999.5 && unit < units.length - 1) {
    left /= 1000;
    unit += 1;
  }
  return `${left < 9.95 ? left.toFixed(1) : Math.round(left)} ${units[unit]}`;
}

export function duration(seconds: number): string {
  const all = Math.max(0, Math.round(seconds));
  if (all < MINUTE) return `${all} s`;
  if (all < HOUR) return `${Math.floor(all / MINUTE)} min ${all % MINUTE} s`;
  if (all < DAY) return `${Math.floor(all / HOUR)} h ${Math.floor((all % HOUR) / MINUTE)} min`;
  return `${Math.floor(all / DAY)} d ${Math.floor((all % DAY) / HOUR)} h`;
}

export function ago(unix: number, now: number): string {
  const seconds = now - unix;
  if (seconds < 45) return "just now";
  if (seconds < HOUR) return `${Math.max(1, Math.round(seconds / MINUTE))} min ago`;
  if (seconds < DAY) return `${Math.round(seconds / HOUR)} h ago`;
  if (seconds < 30 * DAY) return `${Math.round(seconds / DAY)} d ago`;
  return new Date(unix * 1000).toLocaleDateString();
}

export function moment(unix: number): string {
  return new Date(unix * 1000).toLocaleString();
}

/** The time of day; of another day than today with its date. */
export function clock(unix: number): string {
  const at = new Date(unix * 1000);
  const time = at.toLocaleTimeString([], { hour12: false });
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

/** `learning_rate` and `n_epochs` as titles. */
export function words(name: string): string {
  const text = name.replace(/^n_/, "").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
