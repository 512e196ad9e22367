// The few lines of DOM help that three small pages need instead of a framework.

/** The element with this id; the pages and their scripts are written together. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element #${id}`);
  return element as T;
}

type Child = Node | string;

/** Makes an element: `make('a', { href: '/', class: 'quiet' }, 'Lobby')`. Text stays text. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Sets the text only when it changed, so that screen readers hear it once. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Wires a button that copies text, and says so for a moment. */
export function copyButton(button: HTMLButtonElement, text: () => string): void {
  const label = button.textContent ?? '';
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
      setText(button, 'Copied');
    } catch {
      setText(button, 'Not allowed');
    }
    setTimeout(() => setText(button, label), 1_500);
  });
}
