"""The things that scenes are made of: name, plural and the emoji that shows each.

The order is part of the world: a world of n objects has the first n, so it grows without renaming.
Names are what people call the sprite, not always the emoji's own name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """One kind of object.

    Attributes:
        name: singular, lower case. plural: as written after "two".
        emoji: label in emojibase, by which the sprite is found.
    """

    name: str
    plural: str
    emoji: str

    @property
    def article(self) -> str:
        """``a`` or ``an``."""
        return "an" if self.name[0] in "aeiou" and not self.name.startswith("un") else "a"


def _things() -> tuple[Thing, ...]:
    found = []
    for line in _LISTED.strip().splitlines():
        name, _, rest = line.partition(":")
        plural, _, emoji = rest.partition(":")
        found.append(Thing(name, plural.strip() or f"{name}s", emoji.strip() or name))
    return tuple(found)


# name : plural, when it is not name + s : emojibase label, when it is not the name
_LISTED = """
cat::cat face
dog::dog face
cow::cow face
pig::pig face
mouse:mice:mouse face
frog
owl
penguin
koala
lion
bee::honeybee
butterfly:butterflies
octopus:octopuses
turtle
pizza
hamburger
doughnut
carrot
banana
strawberry:strawberries
lemon
apple::red apple
rocket
sailboat
taxi:taxis
helicopter
bicycle
bus:buses
pencil
hammer
basketball
soccer ball
guitar
umbrella
gift::wrapped gift
crown
sunflower
cactus:cactuses
ghost
robot
panda
rabbit::rabbit face
fox:foxes
tiger::tiger face
elephant
giraffe
zebra
monkey::monkey face
chick::front-facing baby chick
parrot
flamingo
duck
fish:fish:tropical fish
whale::spouting whale
dolphin
crab
snail
ladybug::lady beetle
snake
dinosaur::sauropod
pineapple
watermelon
pear
peach:peaches
cherry:cherries:cherries
avocado
eggplant
broccoli:broccolis
mushroom
pepper::hot pepper
bread:breads
croissant
pretzel
cheese:cheeses:cheese wedge
taco
cupcake
lollipop
ice cream::soft ice cream
cookie
teapot
car::automobile
ambulance
fire engine
tractor
airplane
train::locomotive
ship
balloon
kite
scooter::motor scooter
teddy bear
drum
trumpet
camera
candle
key
bell
magnet
axe
saw::carpentry saw
light bulb
backpack
shirt::t-shirt
hat::top hat
shoe::running shoe
glove:gloves:gloves
tennis racket::tennis
bomb
die:dice:game die
tulip
rose
palm tree
pine tree::evergreen tree
snowman:snowmen:snowman without snow
pumpkin::jack-o-lantern
smiley face::grinning face with big eyes
alien
heart::red heart
star
flame::fire
"""

THINGS = _things()
BY_NAME = {thing.name: thing for thing in THINGS}
