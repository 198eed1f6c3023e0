// One tooltip for the whole page: whatever has data-tip shows it, under the pointer or with focus.
import { visibleLines } from "../texts";

const SHOW_AFTER = 250;

export function startTooltips(): void {
  const box = document.createElement("div");
  box.className = "tooltip";
  box.setAttribute("role", "tooltip");
  box.id = "tooltip";
  box.hidden = true;
  document.body.append(box);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let owner: Element | null = null;

  const hide = () => {
    clearTimeout(timer);
    box.hidden = true;
    owner?.removeAttribute("aria-describedby");
    owner = null;
  };
  const show = (target: Element) => {
    const text = target.getAttribute("data-tip");
    if (!text) return;
    box.textContent = visibleLines(text);
    box.hidden = false;
    target.setAttribute("aria-describedby", box.id);
    const at = target.getBoundingClientRect();
    const size = box.getBoundingClientRect();
    const left = Math.min(Math.max(at.left, 4), window.innerWidth - size.width - 4);
    const below = at.bottom + 4 + size.height < window.innerHeight;
    box.style.left = `${left}px`;
    box.style.top = `${below ? at.bottom + 4 : at.top - size.height - 4}px`;
  };
  const enter = (event: Event, wait: number) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (target === owner) return;
    hide();
    if (!target) return;
    owner = target;
    timer = setTimeout(() => show(target), wait);
  };
  document.addEventListener("pointerover", (event) => enter(event, SHOW_AFTER));
  document.addEventListener("focusin", (event) => enter(event, 0));
  document.addEventListener("focusout", hide);
  document.addEventListener("pointerdown", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
