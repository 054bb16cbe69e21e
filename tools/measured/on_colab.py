"""On Colab: nothing of its prose was measured; its table is computed in a cell."""

NOT_MEASURED = {"600 MB": "the size of OpenAI's weights of ViT-B/32"}
