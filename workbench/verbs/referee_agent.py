"""`workbench referee agent|mcp`: questions about planted cases, asked of an agent over the Model Context Protocol."""

import asyncio
import contextlib
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Interval as Between
from annotated_types import MaxLen

from interp.errors import ConfigError
from interp.options import Means, check_limits
from workbench.protocol import calling, check_protocol, offer
from workbench.terminal import Heading, Seeded, Threaded, say
from workbench.verbs.referee import Folder, check_out

if TYPE_CHECKING:
    from workbench.referee.exam import Exam

HEADING = Heading.STUDIES
TASK = "Answer every question of the MCP server `referee` with its tools alone; `questions` lists them."


@dataclass(frozen=True, kw_only=True)
class _Asks(Seeded, Threaded):
    """Options of a verb that asks an agent."""

    folder: Folder
    n: Annotated[int, Between(ge=1, le=1_000)] = 40
    """Questions."""
    strength: Annotated[float, Between(gt=0, le=1)] = 1.0
    """Strength of what is planted: 1, or a weaker one that the folder has (0.05, 0.1, 0.2, 0.4, 0.7)."""
    out: Annotated[str, Means("NAME"), MaxLen(60)] = "agent"
    """Name of the agent: what it does is written to `agents/NAME.jsonl` in the folder."""

    def __post_init__(self) -> None:
        check_limits(self)
        check_out(self.out)

    def exam(self) -> "Exam":
        """Return the questions, with the log so far."""
        from workbench.referee.exam import Exam
        from workbench.referee.questions import questions_of

        questions = questions_of(self.folder, self.n, self.seed, self.strength)
        return Exam(questions, self.folder / "agents" / f"{self.out}.jsonl")


@dataclass(frozen=True, kw_only=True)
class RefereeMcp(_Asks):
    """Ask an agent questions about planted cases, over standard input and output.

    An agent's program starts this command; `workbench referee agent FOLDER` prints the settings for it, and the score.
    """

    words: ClassVar[tuple[str, ...]] = ("referee", "mcp")
    resumes: ClassVar[bool] = True

    def run(self) -> None:
        from workbench.referee.exam import INSTRUCTIONS, offered

        check_protocol()
        self.use_threads()
        exam = self.exam()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(offer("referee", INSTRUCTIONS, offered(), exam.call))


@dataclass(frozen=True, kw_only=True)
class RefereeAgent(_Asks):
    """Ask an agent 40 questions about planted cases, and score what it concludes.

    Example: workbench referee agent referee --baseline --out baseline

    Which head, which feature, which edge, what does it do, is it there at all: in half of the cases nothing is. The
    score counts precision, recall and false explanations, with and without the rule that only a supported claim may be
    concluded. --command starts an agent: {config} stands for a file with the settings of the server, {prompt} for the
    task. Without it, the settings are printed, and the score of what the agent that has them answered so far.
    """

    words: ClassVar[tuple[str, ...]] = ("referee", "agent")
    resumes: ClassVar[bool] = True

    command: Annotated[str, Means("COMMAND")] = ""
    """Command that starts the agent in a temporary folder, such as 'my-agent --mcp-config {config} {prompt}'."""
    baseline: bool = False
    """Score the scripted agent, which concludes what stands out most."""
    json: bool = False
    """Print the score as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline and self.command:
            raise ConfigError("--baseline and --command are two agents; choose one")

    def run(self) -> None:
        from workbench.referee.agent_score import score_agent

        self.exam()  # what is wrong with the folder is said before an agent starts
        server = [sys.executable, "-m", "workbench", "referee", "mcp", str(self.folder.resolve()), "--out", self.out]
        server += ["--n", str(self.n), "--seed", str(self.seed), "--strength", str(self.strength)]
        server += [] if self.threads is None else ["--threads", str(self.threads)]
        settings = {"mcpServers": {"referee": {"command": server[0], "args": server[1:]}}}
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            if self.baseline or self.command:
                check_protocol()
            if self.baseline:
                asyncio.run(_solve(server))
            elif self.command:
                self._start(settings)
            else:
                say(f"Settings of the server, for your agent's program:\n{json.dumps(settings, indent=1)}\n")
        score = score_agent(self.folder, self.exam(), self.out)
        print(json.dumps(score.to_records(), indent=1)) if self.json else say(str(score))

    def _start(self, settings: object) -> None:
        """Run the agent's command to its end, in a folder that holds the settings alone."""
        with TemporaryDirectory() as folder:
            config = Path(folder) / "mcp.json"
            config.write_text(json.dumps(settings), encoding="utf-8")
            try:
                words = shlex.split(self.command)
                words = [word.replace("{config}", str(config)).replace("{prompt}", TASK) for word in words]
                code = subprocess.run(words, check=False, stdout=2 if self.json else None, cwd=folder).returncode
            except (OSError, ValueError) as error:
                raise ConfigError(f"--command cannot be started ({error})") from None
        if code:
            say(f"the agent ended with exit code {code}; the score is of what it answered")


async def _solve(server: list[str]) -> None:
    """Let the scripted agent answer the server that a command starts."""
    from workbench.referee.solver import solve

    async with calling(server) as call:
        await solve(call)
