// Who looks. A link that a person was given has a token in its fragment, which no server's log ever
// has; it is changed for a cookie that scripts cannot read, and taken out of the address at once.
import { signal } from "@preact/signals";
import { ApiError, type Fields, get, type Me, post } from "../api";
import { askAnew, loggedOut, unreachable } from "../asking";

export const me = signal<Me | null>(null);
export const fields = signal<Fields | null>(null);

export async function begin(): Promise<void> {
  const token = new URLSearchParams(window.location.hash.slice(1)).get("token");
  if (token) {
    const { pathname, search } = window.location;
    window.history.replaceState(null, "", pathname + search);
    await login(token).catch(() => undefined); // what the token does not open asks for another
  }
  await identify();
}

/** Exchange a token for the session's cookie. */
export async function login(token: string): Promise<void> {
  await post("session", { token });
  loggedOut.value = false;
}

/** Ask who this is; tries until the aggregator answers. */
export async function identify(): Promise<void> {
  try {
    me.value = await get<Me>("me");
    fields.value = await get<Fields>("fields");
    loggedOut.value = false;
    unreachable.value = false;
    askAnew();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) loggedOut.value = true;
    else if (error instanceof ApiError && error.status === 0) {
      unreachable.value = true;
      setTimeout(identify, 3000);
    }
  }
}
