// What pages find in the browser beside the DOM: Dash, React, and the libraries of components.

/** Properties of a component, or of an element. */
type Properties = Record<string, unknown>;

interface DashClientside {
  no_update: unknown;
  callback_context: { triggered: { prop_id: string }[] };
  set_props(id: string, properties: Properties): void;
  clean_url(url: string): string;
}

interface GridRow {
  isSelected(): boolean;
  setSelected(selected: boolean, alone: boolean): void;
}

interface GridApi {
  getRowNode(id: string): GridRow | undefined;
  addEventListener(name: string, listener: () => void): void;
  setFilterModel(model: Properties): void;
  purgeInfiniteCache(): void;
  refreshInfiniteCache(): void;
  workbenchMarks?: boolean;
}

/** A cell of a grid that was pressed. */
interface GridCell {
  rowId: string;
}

interface ReactNode {
  readonly type: unknown;
}

interface ReactComponent {
  /** each has properties of its own */
  (properties: never): ReactNode;
  dashRenderType?: boolean;
  _dashprivate_isLazyComponentReady?: boolean | Promise<unknown>;
}

interface React {
  Fragment: string;
  createElement(type: string | ReactComponent, properties: Properties | null, ...children: unknown[]): ReactNode;
  useEffect(effect: () => void, given?: unknown[]): void;
  useMemo<T>(make: () => T, given: unknown[]): T;
  useRef<T>(first: T): { current: T };
  useState<T>(first: () => T): [T, (value: T) => void];
}

/** A library of components under its name. */
type Library = Record<string, ReactComponent>;

/** plotly.js, on the documentation site. */
interface Plotly {
  newPlot(holder: Element, data: unknown, layout: Properties, settings: Properties): Promise<unknown>;
}

interface Window {
  Plotly: Plotly;
  dash_clientside: DashClientside;
  dash_ag_grid: { getApiAsync(id: string): Promise<GridApi> };
  DashRenderer: new () => unknown;
  React: React;
  atlasEarly: EarlyMap | null;
}

/** Text and a child of an element; null and undefined are left out. */
type Child = Node | string | null | undefined;

/** Attributes of an element; what begins with `on` listens. */
interface Attributes {
  [name: string]: unknown;
  style?: string | Record<string, string | number> | null;
  onclick?: (event: MouseEvent) => void;
  onchange?: (event: Event) => void;
  oninput?: (event: Event) => void;
  onkeydown?: (event: KeyboardEvent) => void;
  ontoggle?: (event: Event) => void;
}

/** A field of an act (dashboard/components/forms.py). */
interface Field {
  kind: "text" | "path" | "whole" | "number" | "switch" | "choice";
  title: string;
  help: string;
  default: string | number | boolean | null;
  least: number | null;
  most: number | null;
  choices: [value: string, words: string][];
  slider: [low: number, high: number, step: number] | null;
}

/** The fields of a form by name. */
type Fields = Record<string, Field>;
