// Values of the map: what the server sends (dashboard/maps), and what the modules of assets/atlas pass on.

type Point = [x: number, y: number];
type Box = [x0: number, y0: number, x1: number, y1: number];
type Corners = ArrayLike<number>;
type Stops = [at: number, colour: string][];
type Ends = [low: number, high: number];
type Numbers = Float32Array | Uint8Array | Uint16Array | Int32Array;

interface AtlasTheme {
  categories: string[];
  scale: Stops;
  noise: string;
  surface: string;
  text: string;
  muted: string;
  accent: string;
  opposite: string;
  veil: string;
  halo: string;
  tint: string;
  contour: string;
}

interface Column {
  name: string;
  kind: "region" | "category" | "number";
  title: string;
  dtype: "float32" | "uint8" | "uint16" | "int32";
  about: string;
  names: string[];
  counts: number[];
}

interface About {
  name: string;
  n: number;
  levels: number;
  frames?: string[];
  whole_map_level: number;
  colour: string;
  columns: Column[];
  cells: boolean;
  features: string | null;
  themes: Record<"light" | "dark", AtlasTheme>;
}

interface Region {
  region: number;
  level: number;
  parent: number;
  label: string;
  size: number;
  colour: number;
  priority: number;
  contour: number[];
  x: number;
  y: number;
  x_min: number;
  y_min: number;
  x_max: number;
  y_max: number;
}

interface Cell {
  x: number;
  y: number;
  size: number;
  n: number;
  texts: string[];
  coherence: number | null;
}

interface CellGrid {
  side: number;
  cells: Cell[];
}

/** Texts of one point. */
interface PointText {
  point: number;
  label: string;
  region?: string;
  context?: string;
  values: [name: string, value: string | number | null][];
}

/** Where a map's data comes from: routes of the server, or the page itself. */
interface Source {
  about(): Promise<About>;
  regions(): Promise<Region[]>;
  xy(): Promise<Float32Array>;
  column(column: { name: string; dtype: Column["dtype"] }): Promise<Numbers>;
  texts(ids: number[]): Promise<PointText[]>;
  search(text: string): Promise<{ bits: Uint8Array; near: Uint8Array }>;
  /** address of a table of points; missing in a page without a server */
  csv?(given: Record<string, string>): string;
  /** the order in which points are named, 0 first; null where it is that of their numbers */
  ranks(): Promise<Numbers | null>;
  cells(): Promise<CellGrid[]>;
}

/** What `atlas_view(...).to_html()` writes into a page of its own. */
interface EmbeddedPage {
  about: About;
  regions: Region[];
  cells?: CellGrid[];
  labels: string[];
  arrays: Record<string, string>;
}

/** What an address can hold of a view. */
interface AtlasState {
  colour: string;
  search: string;
  filter: string;
  selection: string;
  point: number | null;
  neighbours: number[];
  at: string;
  overlays: string[];
}

interface Colouring {
  codes: Uint8Array;
  /** null for one colour */
  column: Column | null;
  values: Numbers;
  /** of numbers */
  ends: Ends;
  /** of categories and regions: the colour of each number */
  slots: number[];
}

interface MapPoints {
  xy: Float32Array;
  codes: Uint8Array;
}

/** A name of a region: where it lies, its lines, and the zooms at which it is shown. */
interface MapLabel {
  region: Region;
  x: number;
  y: number;
  lines: string[];
  width: number;
  height: number;
  from: number;
  to: number;
}

/** A name as it is on the screen. */
interface ShownLabel {
  label: MapLabel;
  x: number;
  y: number;
}

/** A drag or a pinch on its way. */
interface Drag {
  kind: string;
  x: number;
  y: number;
  startX: number;
  startY: number;
  far: boolean;
  path: number[];
  add: boolean;
}

interface Spread {
  x: number;
  y: number;
  length: number;
}

/** The map that was drawn before the page. */
interface EarlyMap {
  base: string;
  take(): { view: import("../../../dashboard/assets/atlas/view.mjs").AtlasView; touched: Partial<AtlasState> };
}

type Camera = import("../../../dashboard/assets/atlas/camera.mjs").Camera;
type Grid = import("../../../dashboard/assets/atlas/grid.mjs").Grid;
type AtlasView = import("../../../dashboard/assets/atlas/view.mjs").AtlasView;
type Mode = "pan" | "lasso" | "rectangle" | "box";

/** What gestures report. */
interface GestureReports {
  moved(): void;
  rested(): void;
  hovered(x: number, y: number): void;
  left(): void;
  clicked(x: number, y: number, add: boolean): void;
  doubled(x: number, y: number, out: boolean): void;
  drawing(path: number[] | null, kind?: string): void;
  drawn(path: number[], kind: string): void;
  cleared(): void;
  opened(): void;
}

/** What the controls report. */
interface ControlReports {
  change(part: Partial<AtlasState>): void;
  mode(mode: string): void;
  zoom(how: string): void;
  toggle(name: string): void;
  clear(): void;
  picture(): void;
  /** null where nothing serves it */
  table: (() => void) | null;
  fullscreen(): void;
}

/** What is drawn over the points while the view stays. */
interface MarkedScene {
  theme: AtlasTheme;
  labels: MapLabel[] | null;
  outline: Corners | null;
  /** points that a search found, where they are few */
  hits: Point[];
  /** of a plain point, in pixels */
  radius: number;
  chosen: Point | null;
  near: Point[];
  cells: CellGrid[] | null;
}

/** What follows the pointer. */
interface LiveScene {
  theme: AtlasTheme;
  hovered: Point | null;
  region?: number[];
  path: number[] | null;
  closed: boolean;
}
