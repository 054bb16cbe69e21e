"""The sixteen drawn tasks: for each a name, classes, templates, a size in pixels and the way it is drawn.

No class of the source task, DrawnImageNet, occurs in any other task, and the tasks differ in resolution, grounds,
poses, styles and camera: what an adaptation to the source does for the fifteen others is transfer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from zsar.datasets.drawn import pictures
from zsar.datasets.drawn.camera import Camera, photograph
from zsar.datasets.drawn.canvas import Canvas, canvas, grouped
from zsar.datasets.drawn.instruments import LAND, satellite, tissue
from zsar.datasets.drawn.memes import memes
from zsar.datasets.drawn.pictures import AIRCRAFT, CAR_BODIES, PETS, Manner
from zsar.datasets.drawn.randomness import Stream
from zsar.datasets.drawn.scenes import scenes
from zsar.datasets.drawn.textures import PATTERNS, textures

SIZE = 48
PHOTO = ("This is a photo of a {}.",)

SOURCE_OBJECTS = tuple("""
balloon ball bell book cactus candle cloud computer crown door drum duck envelope flag glasses hammer hat heart key
ladder leaf moon owl pig robot rocket shirt shoe snake snowman star sun sword tent tree trophy windmill""".split())
SOURCE_FLOWERS = ("red poppy", "orange poppy", "purple bluebell")
SOURCE_CARS = ("green wagon", "orange wagon")
SOURCE_SCENES = ("volcano", "waterfall", "island", "island at sunset")
SOURCE_TEXTURES = ("scaly", "starry", "fibrous", "studded")

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
CALTECH101 = tuple("""
airplane anchor bear butterfly camera car castle chair clock crab cup elephant fish grapes guitar helicopter house
lamp mushroom pizza rabbit sailboat scissors strawberry turtle umbrella""".split())
CALTECH256 = (*CALTECH101, *"""
banana bee bicycle bottle bridge bus cake deer dog frog horse kite mouse phone spider table tractor train
whale""".split(), "ice cream", "palm tree")
CIFAR100 = (*"""
apple bear bee bicycle bottle bridge bus butterfly castle chair clock crab cup elephant fish house kite lamp mouse
mushroom phone rabbit spider table tractor train turtle whale""".split(), "palm tree", "pine tree")
FOOD101 = ("pizza", "donut", "burger", "ice cream", "cake", "egg", "sushi", "apple", "banana", "cherry", "strawberry",
           "grapes", "carrot")
FLOWERS102 = tuple(f"{colour} {kind}" for kind, colours in {
    "daisy": "red yellow pink purple white blue", "tulip": "red yellow pink purple", "lily": "red yellow pink white",
    "rose": "red yellow pink purple white blue"}.items() for colour in colours.split())
STANFORD_CARS = tuple(f"{colour} {body}" for body in CAR_BODIES if body != "wagon"
                      for colour in ("red", "blue", "white", "black"))
SUN397 = ("beach", "forest", "mountain", "city", "desert", "sea", "field", "snowfield", "street", "lake", "cave",
          "bedroom", "canyon", "harbor", "beach at sunset", "sea at sunset", "city at night", "street at night",
          "desert at night", "mountain at sunset", "lake at night", "forest at night", "field at sunset",
          "snowfield at night", "harbor at sunset", "canyon at night")
DTD = tuple(name for name in PATTERNS if name not in SOURCE_TEXTURES)

# A class name that is not the name of its icon.
ICON_OF = {"automobile": "car"}


@dataclass(frozen=True)
class Task:
    """One drawn classification task. draw: (canvas, stream, class names [n]) -> images [n, 3, size, size]."""

    name: str
    classnames: tuple[str, ...]
    draw: Callable[[Canvas, Stream, np.ndarray], np.ndarray]
    templates: tuple[str, ...] = PHOTO
    camera: Camera = field(default_factory=Camera)
    size: int = SIZE

    def render(self, split: str, indices: np.ndarray, seed: int = 0) -> np.ndarray:
        """Pictures ``indices`` of a split, uint8 [n, 3, size, size]; picture i shows class i mod K."""
        indices = np.asarray(indices)
        stream = Stream.of(f"{self.name}/{split}", seed, indices)
        names = np.array(self.classnames, dtype=object)[indices % len(self.classnames)]
        board = canvas(self.size)
        image = self.draw(board, stream.fork("scene"), names)
        return photograph(board, stream.fork("camera"), image, self.camera)


def _objects(**manner) -> Callable:
    manner = Manner(**manner)

    def draw(board: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
        icons = np.array([ICON_OF.get(name, name) for name in names], dtype=object)
        return pictures.objects(board, stream, icons, manner)
    return draw


SOURCE_DRAW = (
    (SOURCE_OBJECTS, _objects(clutter=1)),
    (SOURCE_FLOWERS, pictures.flowers),
    (SOURCE_CARS, pictures.cars),
    (SOURCE_SCENES, scenes),
    (SOURCE_TEXTURES, textures),
)


def draw_source(board: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
    """DrawnImageNet is broad: mostly objects, and a few flowers, cars, scenes and textures."""
    family = {name: i for i, (members, _) in enumerate(SOURCE_DRAW) for name in members}
    image = np.empty((len(names), 3, board.size, board.size), np.float32)
    for i, index in grouped(np.array([family[name] for name in names])):
        image[index] = SOURCE_DRAW[i][1](board, stream[index], names[index])
    return image


TASKS = {task.name: task for task in (
    Task("DrawnImageNet", tuple(name for members, _ in SOURCE_DRAW for name in members), draw_source),
    Task("DrawnCIFAR10", CIFAR10, _objects(scale=(.8, 1.), styles=(.8, .2, 0.)), size=24),
    Task("DrawnCIFAR100", CIFAR100, _objects(scale=(.8, 1.), styles=(.8, .2, 0.)), size=24),
    Task("DrawnSTL10", STL10, _objects(scale=(.85, 1.05), turn=.12, styles=(.85, .15, 0.)), size=32),
    Task("DrawnCaltech101", CALTECH101, _objects(grounds=("plain", "snow"), styles=(.5, .3, .2), scale=(.75, .98)),
         camera=Camera(blur=.05)),
    Task("DrawnCaltech256", CALTECH256, _objects(clutter=2, styles=(.6, .3, .1), scale=(.6, .85)),
         ("A photo of a {}.",)),
    Task("DrawnOxfordPets", tuple(PETS), pictures.pets, ("A photo of a {}, a type of pet.",)),
    Task("DrawnStanfordCars", STANFORD_CARS, pictures.cars, ("A photo of a {}.",)),
    Task("DrawnFood101", FOOD101, pictures.food, ("A photo of {}, a type of food.",)),
    Task("DrawnFlowers102", FLOWERS102, pictures.flowers, ("A photo of a {}, a type of flower.",)),
    Task("DrawnFGVCAircraft", tuple(AIRCRAFT), pictures.aircraft, ("A photo of a {}, a type of aircraft.",)),
    Task("DrawnSUN397", SUN397, scenes, camera=Camera((.2, .5), (.015, .045), .25)),
    Task("DrawnDTD", DTD, textures, ("A surface with a {} texture.",)),
    Task("DrawnPCAM", ("healthy lymph node tissue", "lymph node tumor tissue"), tissue, ("This is a photo of {}.",)),
    Task("DrawnHatefulMemes", ("kind meme", "mean meme"), memes),
    Task("DrawnEuroSAT", tuple(LAND), satellite, ("A centered satellite photo of {}.",),
         Camera((.2, .5), (.015, .045))),
)}
