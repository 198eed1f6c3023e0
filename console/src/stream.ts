// Server-sent events over fetch: EventSource sends no headers, and the API wants its mark.
import { ApiError, address, answered, type FlowRecord, type Parameters } from "./api";

export interface StreamHandlers {
  /** `live`: as they come; else they came before, and are sent at the beginning. */
  onFlows: (records: FlowRecord[], live: boolean) => void;
  onLost: (count: number) => void;
  /** Connected, or not and why. */
  onState: (error: ApiError | null, connected: boolean) => void;
}

const RETRY = [500, 1000, 2000, 5000];

/** Follow what matches a filter until the returned function is called. Goes on after a break. */
export function followFlows(parameters: Parameters, handlers: StreamHandlers): () => void {
  const abort = new AbortController();
  let last = "";
  let tries = 0;
  let live = false;

  const once = async () => {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (last) headers["Last-Event-ID"] = last;
    const init = { headers, signal: abort.signal };
    const response = await answered(address("stream", parameters), init);
    if (!response.body) return;
    tries = 0;
    live = false;
    handlers.onState(null, true);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value.replaceAll("\r", "")).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) take(block);
    }
  };
  const take = (block: string) => {
    let event = "message";
    const data: string[] = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("id:")) last = line.slice(3).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    if (!data.length) return;
    const value = JSON.parse(data.join("\n"));
    if (event === "flows") handlers.onFlows(value, live);
    else if (event === "live") live = true;
    else if (event === "lost") handlers.onLost(Number(value.lost));
  };
  const loop = async () => {
    while (!abort.signal.aborted) {
      try {
        await once();
        handlers.onState(null, false);
      } catch (error) {
        if (abort.signal.aborted) return;
        const said = error instanceof ApiError && error.status ? error : null;
        handlers.onState(said, false);
        if (said && said.status >= 400 && said.status < 500 && said.status !== 429) return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY[Math.min(tries, 3)]));
      tries += 1;
    }
  };
  void loop();
  return () => abort.abort();
}
