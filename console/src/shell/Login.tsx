import { useState } from "preact/hooks";
import { identify, login } from "./session";

/** What is shown to whom the aggregator does not know. */
export function Login() {
  const [token, set] = useState("");
  const [problem, say] = useState("");
  const enter = async (event: Event) => {
    event.preventDefault();
    try {
      await login(token.trim());
      await identify();
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <main class="login">
      <form onSubmit={enter}>
        <h1>flowvis</h1>
        <p>
          The aggregator wants to know who you are. <code>flowctl open</code> opens this page logged
          in; or paste a token of Kubernetes (<code>kubectl create token</code>), or the one of the
          aggregator's token file.
        </p>
        <label>
          Token
          <input
            type="password"
            autocomplete="off"
            value={token}
            onInput={(event) => set(event.currentTarget.value)}
          />
        </label>
        {problem && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" class="primary" disabled={!token.trim()}>
          Log in
        </button>
      </form>
    </main>
  );
}
