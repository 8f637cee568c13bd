"""Plain prose on eight subjects, written for this project: no model has been trained on it. Torch-free."""

PASSAGES = (
    "The river rises in the hills north of the town and flows for about forty miles before it reaches the sea. In "
    "spring the meadows along its banks are flooded, and the farmers drive their cattle to higher ground. A mill stood "
    "at the bridge until the last century, when the railway came and flour was brought from the city.",
    "Water boils at a lower temperature on a mountain because the pressure of the air is lower there. The same is true "
    "of every liquid: its molecules leave the surface when their pressure equals that of the air above it. In a closed "
    "pot the pressure rises, the water becomes hotter, and the food is done sooner.",
    "She had not expected him to come back so soon. He put his bag on the chair by the door, looked at the letters on "
    "the table and asked whether anyone had called. Nobody had, she said, except the doctor, who wanted to know if the "
    "boy was better. He was, but he still slept most of the day.",
    "To install the package, open a terminal and run the command below. It creates a new folder with a file of "
    "settings, which you can change with any editor. If the server does not start, look at the last lines of the log: "
    "most errors are caused by a port that another program uses. Stop that program, or choose another port.",
    "The court held that the contract was void, since one of the parties had been misled about the value of the land. "
    "The seller appealed. In its judgment of March 1987 the higher court agreed with him in part: the price had been "
    "too high, but the buyer had known of the flood in the previous year and had signed nevertheless.",
    "In the second half the home team played better. After a long pass from the left the captain scored with his head, "
    "and five minutes later the new striker hit the post. The visitors, who had won all their games this season, lost "
    "the ball again and again. The coach said that his players were tired after the match on Wednesday.",
    "A square has four equal sides and four right angles. If the length of a side is doubled, the area becomes four "
    "times as large, and the volume of a cube becomes eight times as large. This is why a large animal needs thicker "
    "legs than a small one of the same shape: its weight grows faster than the area of its bones.",
    "The history of printing in Europe begins in the fifteenth century, but paper and wooden blocks had been used in "
    "China long before. Books became cheaper, more people learned to read, and ideas spread from one country to the "
    "next within months. Within fifty years there were presses in more than two hundred towns.",
)
