import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { loggedOut, unreachable } from "../api";
import { follow, PAGES, type Page, page, parameter, to } from "../location";
import { Icon } from "../parts/icons";
import { Failure, Waiting } from "../parts/Panel";
import { several } from "../texts";
import { Completeness } from "./Completeness";
import { FilterField } from "./FilterField";
import { Login } from "./Login";
import { ComparePicker, RangePicker } from "./Range";
import { fields, identify, me, unknown } from "./session";
import { theme, turnTheme } from "./theme";

const TITLES: Record<Page, string> = {
  overview: "Overview",
  map: "Map",
  flows: "Flows",
  explore: "Explore",
  policies: "Policies",
  nodes: "Nodes",
  sql: "SQL",
};

type Loaded = { default: ComponentType };

/** Each page is a file of its own, fetched when it is first opened. */
const LOAD: Record<Page, () => Promise<Loaded>> = {
  overview: () => import("../pages/Overview"),
  map: () => import("../pages/Map"),
  flows: () => import("../pages/Flows"),
  explore: () => import("../pages/Explore"),
  policies: () => import("../pages/Policies"),
  nodes: () => import("../pages/Nodes"),
  sql: () => import("../pages/Sql"),
};

/** Pages that the filter and the comparison say nothing about. */
const UNFILTERED: ReadonlySet<Page> = new Set(["nodes"]);

export function App() {
  if (loggedOut.value) return <Login />;
  return (
    <>
      <a class="skip" href="#main">
        To the content
      </a>
      <Navigation />
      <div class="frame">
        {page.value !== "sql" && <Bar />}
        {unreachable.value && (
          <p class="banner" role="alert">
            The aggregator does not answer. What is shown is what it last said; it is asked again.
          </p>
        )}
        <Content />
      </div>
    </>
  );
}

function Navigation() {
  const shown = PAGES.filter(
    (each) =>
      !(
        (each === "sql" && me.value?.may.sql === false) ||
        (each === "nodes" && me.value?.may.nodes === false)
      ),
  );
  return (
    <nav class="rail" aria-label="Pages">
      <a class="brand" href={to("overview")} onClick={follow}>
        flowvis
      </a>
      <ul>
        {shown.map((each) => (
          <li key={each}>
            <a
              href={to(each)}
              onClick={follow}
              aria-current={page.value === each ? "page" : undefined}
            >
              <Icon name={each} />
              <span>{TITLES[each]}</span>
            </a>
          </li>
        ))}
      </ul>
      <div class="rail-foot">
        {me.value && <Who />}
        <button
          type="button"
          onClick={turnTheme}
          aria-label="Light or dark"
          data-tip="Light or dark"
        >
          <Icon name={theme.value === "dark" ? "sun" : "moon"} />
        </button>
      </div>
    </nav>
  );
}

function Who() {
  const sees = me.value?.namespaces;
  const scope = sees === "*" || !sees ? "all namespaces" : sees.join(", ") || "no namespace";
  return (
    <span class="who" data-tip={`Sees ${scope}`}>
      <span>{me.value?.user}</span>
      <span class="faint">{sees === "*" ? scope : several(sees?.length ?? 0, "namespace")}</span>
    </span>
  );
}

function Bar() {
  const filtered = !UNFILTERED.has(page.value);
  const live = page.value === "flows" && parameter("live") === "1"; // what comes has no range
  return (
    <header class="bar">
      {!live && <RangePicker />}
      {filtered ? <FilterField /> : <div class="filter" />}
      {filtered && page.value !== "policies" && !live && <ComparePicker />}
      {!live && <Completeness />}
    </header>
  );
}

function Content() {
  const [shown, show] = useState<{ page: Page; Component: ComponentType } | null>(null);
  const [failed, fail] = useState<Page | null>(null);
  const wanted = page.value;
  useEffect(() => {
    let here = true;
    fail(null); // what failed before may be there by now
    document.title = `${TITLES[wanted]} – flowvis`;
    LOAD[wanted]().then(
      (module) => here && show({ page: wanted, Component: module.default }),
      () => here && fail(wanted),
    );
    return () => {
      here = false;
    };
  }, [wanted]);
  return (
    <main id="main" class={`page page-${wanted}`} tabIndex={-1}>
      <h1 class="unseen">{TITLES[wanted]}</h1>
      {failed === wanted ? (
        <div class="state failure" role="alert">
          <p>
            This page could not be loaded: the aggregator is gone or was replaced by another
            version.
          </p>
          <button type="button" onClick={() => window.location.reload()}>
            Load anew
          </button>
        </div>
      ) : shown?.page === wanted && fields.value ? (
        <shown.Component />
      ) : unknown.value && !unreachable.value ? (
        <Failure error={unknown.value} again={() => void identify()} />
      ) : (
        <Waiting />
      )}
    </main>
  );
}
