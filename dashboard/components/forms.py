"""Forms made from the fields of an act, or of other settings, where label, limits, choices, default and help stand.

`field_input` is the input of one field, `text_input` one whose value is always a text, as the forms of *Runs* read
them, `help_mark` the texts of a form behind a "?". `fields_data` hands the same fields to scripts (assets/form.mjs).
"""

import json
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from dashboard.components.frame import attrs, question_mark
from interp.errors import as_typed
from interp.models.short_name import short_name
from interp.options import FEATURE_MENUS, Option, option_of

YES_NO = {"yes": True, "no": False}


def field_input(kind: type, name: str, id: str, *, lines: int = 1, label: bool = True, **extra: Any) -> Any:
    """Return the input of a field: a menu of its choices, a slider of a number, or a text, of several lines if asked.

    Its value is that of the field; without a `label`, only screen readers say it. `extra` are properties of the input.
    """
    option = option_of(kind, name)
    shared: dict[str, Any] = {"id": id, "size": "xs", "value": option.default}
    if option.kind == "number" and option.slider:
        return _slider(option, shared | extra)
    titled = {"label": html.Span(option.title, title=option.help)} if label else attrs({"aria-label": option.title})
    shared |= titled | extra
    if option.kind == "choice":
        data = [{"value": value, "label": words} for value, words in option.words]
        return dmc.Select(data=data, allowDeselect=False, comboboxProps={"shadow": "md"}, **shared)
    shared = {"className": "wb-mono", "persistence": True, "persistence_type": "session", **shared}
    if lines > 1:
        return dmc.Textarea(autosize=True, minRows=lines, maxRows=3 * lines, **shared)
    return dmc.TextInput(**shared)


def _slider(option: Option, shared: dict[str, Any]) -> dmc.Slider:
    """Return the slider of a number, with a mark at every whole one."""
    assert option.slider is not None
    low, high, step = option.slider.low, option.slider.high, option.slider.step
    marks: list[Any] = [{"value": at, "label": f"{at:+d}" if at else "0"} for at in range(round(low), round(high) + 1)]
    return dmc.Slider(
        min=low, max=high, step=step, marks=marks, **attrs({"thumbLabel": f"{option.title}. {option.help}"}), **shared
    )


def help_mark(kind: type, *names: str) -> html.Details:
    """Return the texts of some fields behind a "?"."""
    return help_of([option_of(kind, name) for name in names])


def help_of(options: Sequence[Option]) -> html.Details:
    """Return the texts of options behind a "?"."""
    return question_mark("\n".join(f"{option.title}: {as_typed(option.help)}" for option in options))


def fields_data(**forms: tuple[type, Sequence[str]]) -> dict[str, Any]:
    """Return fields for a script as an attribute of an element: name of a form -> (class, fields that are asked)."""
    data = {form: {name: _described(option_of(kind, name)) for name in names} for form, (kind, names) in forms.items()}
    return attrs({"data-fields": json.dumps(data)})


def _described(option: Option) -> dict[str, object]:
    return {
        "kind": option.kind, "title": option.title, "help": option.help, "default": option.default,
        "least": option.least, "most": option.most, "choices": option.words,
        "slider": option.slider and [option.slider.low, option.slider.high, option.slider.step],
    }  # fmt: skip


def model_choices(specs: Sequence[str]) -> list[dict[str, str]]:
    """Return models for a menu, by their short names; by the whole spec where several have the same one."""
    names = [short_name(spec) for spec in specs]
    return [
        {"value": spec, "label": name if names.count(name) == 1 else spec}
        for spec, name in zip(specs, names, strict=True)
    ]


def text_input(option: Option, id: dict[str, str], offered: list[str], value: str | None) -> Any:
    """Return the input of an option, its help as a tip. Every kind has its text in `value`."""
    default = option.default
    shared: dict[str, Any] = {
        "id": id,
        "label": html.Span(option.title, title=as_typed(option.help)),
        "size": "xs",
        "withAsterisk": option.required,
    }
    if option.kind == "switch":
        shown = value if value in YES_NO else {True: "yes", False: "no", None: None}[default]
        return dmc.Select(data=["yes", "no"], value=shown, clearable=option.optional, **shared)
    if option.kind == "choice" and not option.many:
        shown = value if value in option.choices else default
        return dmc.Select(data=list(option.choices), value=shown, clearable=default is None, searchable=True, **shared)
    if option.many:
        values = value.split(",") if value else [text_of(entry) for entry in default or ()]
        return dmc.TagsInput(data=offered, value=values, clearable=True, acceptValueOnBlur=True, **shared)
    text = value if value is not None else text_of(default)
    if option.menu in FEATURE_MENUS:
        return feature_input(offered=offered, value=text, **shared)
    if offered:
        return dmc.Autocomplete(data=offered, value=text, **shared)
    return dmc.TextInput(value=text, **shared)


def feature_input(id: str | dict[str, str], label: Any, offered: list[str], value: str, **extra: Any) -> Any:
    """Return a field for a feature, with a menu of names and labels that a callback fills while a visitor types."""
    look: dict[str, Any] = {"size": "xs", **extra}
    return dmc.Autocomplete(
        id=id, label=label, data=offered, value=value, limit=12, debounce=200,
        placeholder="a number, or a word of its label", **look,
    )  # fmt: skip


def text_of(value: object) -> str:
    """Return a value as it is typed."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
