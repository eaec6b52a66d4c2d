"""Makes the embedding model that ships out of the one that the package holds: the same weights, in a graph that computes with them.

The package's file keeps weights in 8 bits and turns them back into floats before it multiplies. Here they stay in 8 bits: what is
multiplied with them is quantised on the way (DynamicQuantizeMatMul), and attention and GELU are one operator each. That
takes less than half of the time. Only weights are moved, and no float is computed, so every machine makes the same bytes, which
config/assets.toml pins. Python's own library is enough: ONNX is protobuf, of which this reads and writes what it needs.

What is quantised on the way has one scale for all texts of a batch, so texts are embedded one by one.
"""

import struct

FLOAT, INT8, INT32, INT64 = 1, 3, 6, 7
WIDTH, WIDE, LAYERS, HEADS = 384, 1536, 6, 12


def fused(source):
    """The bytes of the new file, out of those of the package's."""
    weights, multiplied = read(source)
    if len(multiplied) != 6 * LAYERS:
        raise ValueError(f"the model multiplies with {len(multiplied)} tables of weights instead of {6 * LAYERS}")
    graph = Graph()

    def given(name, dims, kind=FLOAT):
        return graph.table(name, dims, kind, weights[name])

    def linear(x, names, rows, columns, biases):
        """`x` times one or more tables beside each other."""
        tables = [weights[name + "_q"] for name in names]
        cut = range(0, rows * columns, columns)
        beside = tables[0] if len(tables) == 1 else b"".join(table[at : at + columns] for at in cut for table in tables)
        width, name = columns * len(names), names[0]
        return graph.node(
            "DynamicQuantizeMatMul",
            [
                x,
                graph.table(name, [rows, width], INT8, beside),
                graph.table(name + ".scale", [width], FLOAT, b"".join(weights[n + "_scale"] for n in names)),
                "",
                graph.table(name + ".bias", [width], FLOAT, b"".join(weights[b] for b in biases)),
            ],
        )

    def normalised(x, beside, name):
        # A "Sum", because the runtime would make one operator of an "Add" and what follows, and that one takes thrice as long.
        tables = [given(f"{name}.{part}", [WIDTH]) for part in ("weight", "bias")]
        return graph.plain("LayerNormalization", [graph.plain("Sum", [x, beside]), *tables], axis=-1, epsilon=1e-12)

    # Of the words' table only the rows of this text are turned into floats.
    embeddings = "inner.embeddings."
    words = given(embeddings + "word_embeddings.weight_q", [30522, WIDTH], INT8)
    scales = given(embeddings + "word_embeddings.weight_scale", [30522, 1])
    rows = graph.plain("Cast", [graph.plain("Gather", [words, "input_ids"])], to=FLOAT)
    rows = graph.plain("Mul", [rows, graph.plain("Gather", [scales, "input_ids"])])
    zero = graph.table("zero", [1], INT64, struct.pack("<q", 0))
    length = graph.plain("Shape", ["input_ids"], start=1)
    places = given(embeddings + "position_embeddings.weight_q", [512, WIDTH], INT8)
    place_scales = given(embeddings + "position_embeddings.weight_scale", [512, 1])
    places, place_scales = (graph.plain("Slice", [table, zero, length, zero]) for table in (places, place_scales))
    places = graph.plain("Mul", [graph.plain("Cast", [places], to=FLOAT), place_scales])
    # One text is all of the first type.
    first = graph.table("type", [WIDTH], FLOAT, weights[embeddings + "token_type_embeddings.weight"][: 4 * WIDTH])
    x = normalised(graph.plain("Add", [rows, first]), places, embeddings + "LayerNorm")

    mask = graph.plain("Cast", ["attention_mask"], to=INT32)
    thirds = graph.table("thirds", [3], INT64, struct.pack("<3q", WIDTH, WIDTH, WIDTH))
    for layer in range(LAYERS):
        name = f"inner.encoder.layer.{layer}."
        query, key, value, output, up, down = multiplied[6 * layer : 6 * layer + 6]
        biases = [f"{name}attention.self.{part}.bias" for part in ("query", "key", "value")]
        asked = linear(x, [query, key, value], WIDTH, WIDTH, biases)
        parts = graph.plain("Split", [asked, thirds], outputs=3, axis=2)
        seen = graph.node("MultiHeadAttention", [*parts, "", mask], num_heads=HEADS)
        seen = linear(seen, [output], WIDTH, WIDTH, [name + "attention.output.dense.bias"])
        x = normalised(seen, x, name + "attention.output.LayerNorm")
        wide = graph.node("Gelu", [linear(x, [up], WIDTH, WIDE, [name + "intermediate.dense.bias"])])
        x = normalised(linear(wide, [down], WIDE, WIDTH, [name + "output.dense.bias"]), x, name + "output.LayerNorm")
    graph.plain("Identity", [x], outputs=["last_hidden_state"])
    return graph.model(inputs=["input_ids", "attention_mask"], output="last_hidden_state", width=WIDTH)


# --- ONNX, as far as it is needed: the numbers are those of onnx.proto -------------------------------------------------


def read(source):
    """The tables of weights by name, and the names of those that something is multiplied with, in order."""
    [graph] = [value for number, value in fields(source) if number == 7]
    weights, multiplied = {}, []
    for number, value in fields(graph):
        parts = list(fields(value)) if number in (1, 5) else []
        if number == 5:  # a table: its name is 8, its bytes are 9
            found = dict(parts)
            weights[bytes(found[8]).decode()] = bytes(found.get(9, b""))
        elif number == 1 and (4, b"MatMul") in parts:
            multiplied.append(bytes([part for which, part in parts if which == 1][1]).decode())
    return weights, [name for name in multiplied if name + "_q" in weights]


def fields(message):
    """Each field's number and value."""
    message, at = memoryview(message), 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        length = number() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, message[at : at + length]
        at += length


class Graph:
    def __init__(self):
        self.nodes, self.tables, self.count = [], [], 0

    def table(self, name, dims, kind, content):
        size = {FLOAT: 4, INT8: 1, INT64: 8}[kind]
        for dim in dims:
            size *= dim
        if size != len(content):
            raise ValueError(f"{name} has {len(content)} bytes instead of {size}")
        self.tables.append(message(*((1, dim) for dim in dims), (2, kind), (8, name), (9, content)))
        return name

    def plain(self, op, inputs, outputs=1, **attributes):
        """An operator of ONNX itself."""
        return self.node(op, inputs, outputs, domain="", **attributes)

    def node(self, op, inputs, outputs=1, domain="com.microsoft", **attributes):
        """An operator; the name of what it puts out, or the names."""
        self.count += 1
        if isinstance(outputs, int):
            outputs = [f"{op}.{self.count}.{i}" for i in range(outputs)]
        told = []
        for key, value in attributes.items():
            value = [(2, value), (20, 1)] if isinstance(value, float) else [(3, value), (20, 2)]
            told.append((5, message((1, key), *value)))
        names = [*((1, name) for name in inputs), *((2, name) for name in outputs)]
        self.nodes.append(message(*names, (3, f"{op}.{self.count}"), (4, op), *told, (7, domain)))
        return outputs[0] if len(outputs) == 1 else outputs

    def model(self, inputs, output, width):
        def value(name, kind, *dims):
            shape = message(*((1, message((1, dim) if isinstance(dim, int) else (2, dim))) for dim in dims))
            return message((1, name), (2, message((1, message((1, kind), (2, shape))))))

        graph = message(
            *((1, node) for node in self.nodes),
            (2, "fused"),
            *((5, table) for table in self.tables),
            *((11, value(name, INT64, "batch", "sequence")) for name in inputs),
            (12, value(output, FLOAT, "batch", "sequence", width)),
        )
        operators = [message((1, ""), (2, 17)), message((1, "com.microsoft"), (2, 1))]
        return message((1, 8), (2, "tandem"), (7, graph), *((8, operator) for operator in operators))


def message(*parts):
    """A message of numbered fields: whole numbers, floats, texts, bytes."""
    written = []
    for number, value in parts:
        if isinstance(value, int):
            written += [varint(number << 3), varint(value % (1 << 64))]
        elif isinstance(value, float):
            written += [varint(number << 3 | 5), struct.pack("<f", value)]
        else:
            value = value.encode() if isinstance(value, str) else value
            written += [varint(number << 3 | 2), varint(len(value)), value]
    return b"".join(written)


def varint(value):
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
