# elixir check.exs LIST: puts files before the formatter and the compiler. A line of LIST is the path of a file, and after
# tabs those of other files that it is compiled with. Prints a line for each file and tool: the path, the tool, and what
# it says as an Elixir string, or `:checked` where it has nothing to say; with tabs between them.

[list] = System.argv()
Code.compiler_options(ignore_module_conflict: true)
ExUnit.start(autorun: false)
Code.require_file("shapes.ex", __DIR__)

# What the libraries' own .formatter.exs export.
without_parentheses = [
  plug: 1,
  plug: 2,
  get: 2,
  post: 2,
  put: 2,
  delete: 2,
  match: 2,
  forward: 2,
  action_fallback: 1,
  field: 2,
  field: 3,
  belongs_to: 2,
  create: 1,
  create: 2,
  drop: 1,
  add: 2,
  add: 3,
  timestamps: 1,
  attr: 2,
  attr: 3,
  slot: 1,
  slot: 2,
  slot: 3,
  live: 2,
  pipe_through: 1,
  resources: 3,
  check: 1,
  check: 2,
  property: 2,
  all: :*
]

say = fn path, tool, what ->
  IO.puts("#{path}\t#{tool}\t#{inspect(what, limit: :infinity, printable_limit: :infinity)}")
end

# Long names make long lines: the width is the formatter's 98, or that of the longest line. So what is broken for the
# usual names stays broken, and a line that a name made too long stays one.
formatted = fn text ->
  width = text |> String.split("\n") |> Enum.map(&String.length/1) |> Enum.max() |> max(98)
  options = [line_length: width, locals_without_parens: without_parentheses]

  try do
    {:ok, IO.iodata_to_binary([Code.format_string!(text, options), ?\n])}
  rescue
    error in [SyntaxError, TokenMissingError] -> {:error, error}
  end
end

first_difference = fn left, right ->
  {left, right} = {String.split(left, "\n"), String.split(right, "\n")}

  at =
    Enum.zip(left, right) |> Enum.find_index(fn {l, r} -> l != r end) ||
      min(length(left), length(right))

  "line #{at + 1}: #{Enum.at(left, at)}\nformatted: #{Enum.slice(right, at, 4) |> Enum.join("\n")}"
end

compiled = fn paths ->
  compile = fn ->
    case Kernel.ParallelCompiler.compile(paths) do
      {:ok, modules, warnings} ->
        # The next file may have modules of the same names.
        for module <- modules, do: :code.delete(module) && :code.purge(module)
        send(self(), {:said, warnings})

      {:error, errors, warnings} ->
        send(self(), {:said, errors ++ warnings})
    end
  end

  ExUnit.CaptureIO.capture_io(:stderr, compile)

  receive do
    {:said, said} -> said
  end
end

for line <- list |> File.read!() |> String.split("\n", trim: true) do
  [path | others] = String.split(line, "\t")
  text = File.read!(path)

  case formatted.(text) do
    {:ok, ^text} -> say.(path, "mix format", :checked)
    {:ok, other} -> say.(path, "mix format", first_difference.(text, other))
    {:error, error} -> say.(path, "mix format", Exception.message(error))
  end

  # Scripts do their work as soon as they are compiled.
  unless path =~ ~r"/(config|bench)/" do
    said =
      for {file, position, message} <- compiled.(others ++ [path]),
          # What only the markup of a component calls is taken for unused.
          not (text =~ "~H" and message =~ ~r/\Afunction .* is unused\z/) do
        "#{file}:#{inspect(position)}: #{message}"
      end

    say.(path, "elixirc", if(said == [], do: :checked, else: Enum.join(said, "\n")))
  end
end
