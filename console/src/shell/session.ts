// Who looks. A link that a person was given has a token in its fragment, which no server's log ever
// has; it is changed for a cookie that scripts cannot read, and taken out of the address at once.
import { signal } from "@preact/signals";
import { ApiError, type Fields, get, loggedOut, type Me, passes, post } from "../api";
import { askAnew } from "../asking";

export const me = signal<Me | null>(null);
export const fields = signal<Fields | null>(null);
/** Why it is not known who looks, other than that nobody has said it. */
export const unknown = signal<ApiError | null>(null);

const RETRY_MS = 3000;

export async function begin(): Promise<void> {
  const token = given();
  if (token) {
    const { pathname, search } = window.location;
    window.history.replaceState(window.history.state, "", pathname + search);
    await enter(token);
  }
  await identify();
}

// A link that is opened where a console already is loads no page anew.
window.addEventListener("hashchange", () => {
  if (given()) void begin();
});

function given(): string | null {
  return new URLSearchParams(window.location.hash.slice(1)).get("token");
}

/** Log in by a link's token. What it does not open asks for another. */
async function enter(token: string): Promise<void> {
  try {
    await login(token);
  } catch (error) {
    if (!(error instanceof ApiError) || !passes(error)) return;
    unknown.value = error;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    await enter(token);
  }
}

/** Exchange a token for the session's cookie. */
export async function login(token: string): Promise<void> {
  await post("session", { token });
  loggedOut.value = false;
}

let later: ReturnType<typeof setTimeout> | undefined;

/** Ask who this is; tries until the aggregator answers. */
export async function identify(): Promise<void> {
  clearTimeout(later);
  try {
    me.value = await get<Me>("me");
    fields.value = await get<Fields>("fields");
    loggedOut.value = false;
    unknown.value = null;
    askAnew();
  } catch (cause) {
    const error =
      cause instanceof ApiError ? cause : new ApiError(0, "console", { message: String(cause) });
    unknown.value = error.status === 401 ? null : error;
    if (passes(error)) later = setTimeout(identify, RETRY_MS);
  }
}
