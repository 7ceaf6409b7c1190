"""What drafters share whose blocks always hold as many nodes."""


class OneWidth:
    """Base of drafters that leave the loop no choice of block size.

    Unless they say otherwise, they propose trees, and look at no tokens but those the target says.
    """

    nodes: int
    top = 0
    is_chain = False

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.nodes,)
