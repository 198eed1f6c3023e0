import { render } from "preact";
import "./styles/tokens.css";
import "./styles/parts.css";
import "./styles/shell.css";
import "./styles/pages.css";
import { startTooltips } from "./parts/tooltip";
import { App } from "./shell/App";
import { begin } from "./shell/session";
import "./shell/theme";

const root = document.getElementById("console");
if (root) render(<App />, root);
startTooltips();
void begin();
