"""`workbench align MODEL`: where a model keeps a variable of a causal program, by interchange interventions."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from interp.circuits.alignment import Alignment, AlignmentConfig
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.options import BASIC, Means
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, settings_of, slug

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Align(AlignmentConfig, Threaded, RunsModel, Analysis["Alignment"]):
    """Find the subspace that holds a variable, by swapping it between two prompts.

    Example: workbench align smollm2-135m --program agreement --variable number

    A causal program says what the model should answer after a swap. Programs: `agreement` (variable `number` of the
    subject), `indirect-object` (variable `order` of the two names), or a .jsonl file of pairs with the columns base,
    source, answer and wanted. Whole vectors are swapped at each layer and position; at the best site subspaces are
    compared with a random one, a placebo of equal norm, arbitrary labels and an untrained model.
    """

    makes: ClassVar[str] = "alignment"

    model: ModelArgument
    program: Annotated[str, BASIC, Means("PROGRAM")] = "agreement"
    """Name of a program, or a .jsonl file of pairs."""
    variable: Annotated[str | None, BASIC, Means("NAME")] = None
    """Variable that is swapped. Default: the program's first."""
    site: Annotated[str | None, Means("LAYER:POSITION")] = None
    """Residual stream at which subspaces are compared, such as 12:3. Default: the best of the map."""
    sae: Annotated[str | None, Means("SAE")] = None
    """SAE of the workspace at that site's hook point, whose latents are swapped too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layer_and_position()

    def layer_and_position(self) -> tuple[int, int] | None:
        """Return layer and position of the site. Raises `ConfigError` for another form."""
        if self.site is None:
            return None
        layer, colon, position = self.site.partition(":")
        if not (colon and layer.isdecimal() and position.isdecimal()):
            raise ConfigError(f"--site is LAYER:POSITION, such as 12:3, got {self.site!r}")
        return int(layer), int(position)

    def default_name(self) -> str:
        called = Path(self.program).stem if Path(self.program).suffix else self.program
        return slug(f"{called}-{self.variable or 'first'}-{short_name(self.model)}")

    def measure(self, run: AnalysisRun) -> Alignment:
        from interp.circuits.aligning import align
        from interp.circuits.causal_programs import pairs_from_file, program_called

        file = Path(self.program) if Path(self.program).suffix else None
        text = None if file is None else run.text(file)
        program = program_called(self.program) if file is None else pairs_from_file(file)
        variable = self.variable or ("answer" if isinstance(program, list) else next(iter(program.variables)))
        dictionary = None if self.sae is None else run.sae(self.sae)
        model = run.model(self.model)
        with run.progress("alignment", "steps") as progress:
            found = align(
                model,
                program,
                variable,
                settings_of(self, AlignmentConfig),
                site=self.layer_and_position(),
                dictionary=dictionary,
                name="pairs" if file is None else file.stem,
                model_name=self.model,
                progress=progress,
            )
        return replace(found, file=text)
