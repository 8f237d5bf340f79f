from tombola.pictures.layout import lay_out


def test_rows_are_modules_and_columns_are_layers():
    layout = lay_out(
        ["model.layers.10.self_attn.q_proj", "model.layers.2.self_attn.q_proj", "model.layers.2.mlp.up_proj"]
    )
    assert layout.rows == ("q_proj", "up_proj")
    assert layout.columns == ("2", "10")
    assert layout.places["model.layers.10.self_attn.q_proj"] == (0, 1)
    assert layout.places["model.layers.2.mlp.up_proj"] == (1, 0)


def test_labels_are_as_short_as_they_may_be():
    names = [
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.output.dense",
        "encoder.layer.0.attention.self.query",
    ]
    assert lay_out(names).rows == ("attention.output.dense", "output.dense", "query")


def test_weights_outside_the_layers_get_their_own_column():
    layout = lay_out(["model.layers.0.q_proj", "pooler.dense"])
    assert layout.columns == ("", "0")
    assert layout.rows == ("q_proj", "dense")
    assert layout.places["pooler.dense"] == (1, 0)
