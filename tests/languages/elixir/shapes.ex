# The public functions and macros of the libraries that the templates use, without what they do: no registry of these
# packages can be asked here, so a rendering is compiled against their documented shapes. Its names, arities, variables
# and structs are checked by that; what a call returns is not.

defmodule Shape do
  def of(_arguments), do: :erlang.nif_error(:shape_only)
end

defmodule Jason do
  def encode!(term), do: Shape.of(term)
  def decode(text), do: Shape.of(text)
  def decode!(text), do: Shape.of(text)
end

defmodule Plug do
  @callback init(term) :: term
  @callback call(struct, term) :: struct
end

defmodule Plug.Conn do
  defstruct [:status, :method, :request_path, :body_params, :query_params, :params, :req_headers, assigns: %{}]
  def assign(conn, key, value), do: Shape.of({conn, key, value})
  def fetch_query_params(conn), do: Shape.of(conn)
  def get_req_header(conn, name), do: Shape.of({conn, name})
  def get_resp_header(conn, name), do: Shape.of({conn, name})
  def halt(conn), do: Shape.of(conn)
  def put_req_header(conn, name, value), do: Shape.of({conn, name, value})
  def put_resp_content_type(conn, type), do: Shape.of({conn, type})
  def put_resp_header(conn, name, value), do: Shape.of({conn, name, value})
  def put_status(conn, status), do: Shape.of({conn, status})
  def send_resp(conn, status, body), do: Shape.of({conn, status, body})
end

defmodule Plug.BasicAuth do
  def parse_basic_auth(conn), do: Shape.of(conn)
  def request_basic_auth(conn, options \\ []), do: Shape.of({conn, options})
end

defmodule Plug.Crypto do
  def secure_compare(left, right), do: Shape.of({left, right})
end

defmodule Plug.Parsers do
end

defmodule Plug.ErrorHandler do
  @callback handle_errors(struct, map) :: struct
  defmacro __using__(_options), do: quote(do: @behaviour(Plug.ErrorHandler))
end

defmodule Plug.Router do
  defmacro __using__(_options) do
    quote do
      import Plug.Conn
      import Plug.Router

      def init(options), do: options
      def call(conn, options), do: Shape.of({conn, options})
      def match(conn, _options), do: conn
      def dispatch(conn, _options), do: conn
    end
  end

  defmacro plug(plug, options \\ []) do
    quote(do: @last_plug({unquote(plug), unquote(options)}))
  end

  for verb <- [:get, :post, :put, :delete, :match] do
    defmacro unquote(verb)(path, do: body), do: route(path, body)
  end

  defp route(path, body) do
    segments = if is_binary(path), do: String.split(path, "/"), else: []
    bound = for ":" <> name <- segments, do: Macro.var(String.to_atom(name), nil)
    name = :"route_#{System.unique_integer([:positive])}"

    quote do
      def unquote(name)(var!(conn), unquote_splicing(bound)), do: unquote(body)
    end
  end
end

defmodule Bandit do
  def child_spec(options), do: Shape.of(options)
end

defmodule Ecto.UUID do
  @type t :: String.t()
  def cast(value), do: Shape.of(value)
end

defmodule Ecto.Schema do
  @type t :: struct

  defmacro __using__(_options) do
    quote do
      import Ecto.Schema
      @primary_key {:id, :id, autogenerate: true}
    end
  end

  defmacro schema(_table, do: block) do
    quote do
      _ = @primary_key
      Module.register_attribute(__MODULE__, :shape_fields, accumulate: true)
      unquote(block)
      defstruct [:id, :inserted_at, :updated_at] ++ Enum.uniq(@shape_fields)
    end
  end

  defmacro field(name, type, _options \\ []) do
    quote do
      _ = unquote(type)
      @shape_fields unquote(name)
    end
  end

  defmacro timestamps(_options \\ []), do: nil
end

defmodule Ecto.Changeset do
  defstruct [:action, :errors]
  @type t :: %__MODULE__{}
  def cast(data, params, permitted), do: Shape.of({data, params, permitted})
  def traverse_errors(changeset, function), do: Shape.of({changeset, function})
  def unique_constraint(changeset, field), do: Shape.of({changeset, field})
  def validate_length(changeset, field, options), do: Shape.of({changeset, field, options})
  def validate_required(changeset, fields), do: Shape.of({changeset, fields})
end

defmodule Ecto.Query do
  defmacro where(query, binding \\ [], expression), do: pinned(query, {binding, expression})
  defmacro order_by(query, binding \\ [], expression), do: pinned(query, {binding, expression})
  defmacro limit(query, binding \\ [], expression), do: pinned(query, {binding, expression})

  # Only what is pinned is a variable outside the query.
  defp pinned(query, expression) do
    {_same, values} =
      Macro.prewalk(expression, [], fn
        {:^, _, [value]}, values -> {nil, [value | values]}
        other, values -> {other, values}
      end)

    quote(do: Shape.of([unquote(query) | unquote(values)]))
  end
end

defmodule Repo do
  def all(query), do: Shape.of(query)
  def get(schema, id), do: Shape.of({schema, id})
  def insert(changeset), do: Shape.of(changeset)
  def update(changeset), do: Shape.of(changeset)
  def delete(row, options \\ []), do: Shape.of({row, options})
end

defmodule Ecto.Migration do
  defmacro __using__(_options), do: quote(do: import(Ecto.Migration))
  defmacro create(object, do: block), do: quote(do: (Shape.of(unquote(object)); unquote(block)))
  def create(object), do: Shape.of(object)
  def drop(object), do: Shape.of(object)
  def table(name, options \\ []), do: Shape.of({name, options})
  def index(table, columns, options \\ []), do: Shape.of({table, columns, options})
  def unique_index(table, columns, options \\ []), do: Shape.of({table, columns, options})
  def add(column, type, options \\ []), do: Shape.of({column, type, options})
  def timestamps(options \\ []), do: Shape.of(options)
end

defmodule Ecto.Adapters.SQL.Sandbox do
  def checkout(repo, options \\ []), do: Shape.of({repo, options})
end

defmodule Phoenix.Router do
  defmacro __using__(_options) do
    quote do
      import Phoenix.Router
      import Plug.Conn

      def init(options), do: options
      def call(conn, options), do: Shape.of({conn, options})
    end
  end

  # A plug is a module, or a function of two that is imported.
  defmacro plug(plug, options \\ [])

  defmacro plug(plug, options) when is_atom(plug) do
    name = :"plug_#{System.unique_integer([:positive])}"
    quote(do: def(unquote(name)(conn), do: unquote(plug)(conn, unquote(options))))
  end

  defmacro plug(plug, options), do: quote(do: @last_plug({unquote(plug), unquote(options)}))
  defmacro pipeline(_name, do: block), do: block
  defmacro scope(_path, do: block), do: block
  defmacro pipe_through(name), do: quote(do: @piped(unquote(name)))

  # The actions that are left are functions of the controller.
  defmacro resources(_path, controller, options \\ []) do
    all = [:index, :new, :create, :show, :edit, :update, :delete]
    left = Keyword.get(options, :only, all) -- Keyword.get(options, :except, [])
    calls = for action <- left, do: quote(do: unquote(controller).unquote(action)(conn, %{}))
    name = :"resources_#{System.unique_integer([:positive])}"
    quote(do: def(unquote(name)(conn), do: unquote(calls)))
  end
end

defmodule Phoenix.ConnTest do
  def build_conn, do: Shape.of([])
  def dispatch(conn, endpoint, method, path, body \\ nil), do: Shape.of({conn, endpoint, method, path, body})
  def json_response(conn, status), do: Shape.of({conn, status})
  def response(conn, status), do: Shape.of({conn, status})
end

defmodule Phoenix.Controller do
  defmacro __using__(_options), do: quote(do: import(Phoenix.Controller))
  def accepts(conn, accepted), do: Shape.of({conn, accepted})
  defmacro action_fallback(plug), do: quote(do: @action_fallback(unquote(plug)))
  def render(conn, template), do: Shape.of({conn, template})
  def render(conn, template, assigns), do: Shape.of({conn, template, assigns})
  def json(conn, body), do: Shape.of({conn, body})
end

defmodule Phoenix.HTML.FormField do
  defstruct [:id, :name, :value, :errors]
end

defmodule Phoenix.HTML.Form do
  def normalize_value(type, value), do: Shape.of({type, value})
end

defmodule Phoenix.Flash do
  def get(flash, kind), do: Shape.of({flash, kind})
end

defmodule Phoenix.Component do
  defmacro __using__(_options), do: quote(do: import(Phoenix.Component))
  # What the markup says is not looked at.
  defmacro sigil_H(_markup, []), do: quote(do: Shape.of(var!(assigns)))

  defmacro attr(name, type, options \\ []), do: quote(do: _ = {unquote(name), unquote(type), unquote(options)})
  defmacro slot(name, options \\ [])
  defmacro slot(_name, do: block), do: block
  defmacro slot(_name, _options), do: nil
  defmacro slot(_name, _options, do: block), do: block
  def assign(socket, assigns), do: Shape.of({socket, assigns})
  def assign(socket, key, value), do: Shape.of({socket, key, value})
  def to_form(data, options \\ []), do: Shape.of({data, options})
end

defmodule Phoenix.LiveView.JS do
  defstruct ops: []
  def push(event, options \\ []), do: Shape.of({event, options})
  def show(js, options), do: Shape.of({js, options})
  def hide(js, options), do: Shape.of({js, options})
  def focus_first(js, options), do: Shape.of({js, options})
  def push_focus(js), do: Shape.of(js)
  def pop_focus(js), do: Shape.of(js)
end

defmodule Phoenix.LiveView do
  @callback mount(map, map, struct) :: term
  @callback render(map) :: term
  @callback handle_event(String.t(), map, struct) :: term

  defmacro __using__(_options) do
    quote do
      @behaviour Phoenix.LiveView
      import Phoenix.Component
      import Phoenix.LiveView
    end
  end

  def stream(socket, name, items, options \\ []), do: Shape.of({socket, name, items, options})
  def stream_insert(socket, name, item, options \\ []), do: Shape.of({socket, name, item, options})
  def stream_delete(socket, name, item), do: Shape.of({socket, name, item})
  def put_flash(socket, kind, text), do: Shape.of({socket, kind, text})
end

defmodule Gnat.Server do
  @callback request(map) :: term
  @callback error(map, term) :: term
  defmacro __using__(_options), do: quote(do: @behaviour(Gnat.Server))
end

defmodule Gnat.ConsumerSupervisor do
  def child_spec(settings), do: Shape.of(settings)
end

defmodule Gnat.Jetstream.API.Stream do
  defstruct [:name, :subjects]
  def create(connection, stream), do: Shape.of({connection, stream})
end

defmodule Gnat.Jetstream.API.Consumer do
  defstruct [:stream_name, :durable_name, :filter_subject, :ack_policy, :ack_wait, :max_deliver]
  def create(connection, consumer), do: Shape.of({connection, consumer})
end

defmodule Gnat.Jetstream.PullConsumer do
  @callback init(term) :: term
  @callback handle_message(map, term) :: term
  defmacro __using__(_options), do: quote(do: @behaviour(Gnat.Jetstream.PullConsumer))
  def start_link(module, argument, options \\ []), do: Shape.of({module, argument, options})
end

defmodule Broadway.Message do
  defstruct [:data, :metadata, :status]
  def configure_ack(message, options), do: Shape.of({message, options})
  def failed(message, reason), do: Shape.of({message, reason})
  def put_data(message, data), do: Shape.of({message, data})
end

defmodule Broadway do
  @callback handle_message(atom, struct, term) :: struct
  @callback handle_batch(atom, [struct], term, term) :: [struct]
  @callback handle_failed([struct], term) :: [struct]
  @optional_callbacks handle_failed: 2
  defmacro __using__(_options), do: quote(do: @behaviour(Broadway))
  def start_link(module, options), do: Shape.of({module, options})
end

defmodule ExUnitProperties do
  defmacro __using__(_options) do
    quote do
      import ExUnitProperties
      import StreamData
    end
  end

  defmacro property(label, do: block), do: quote(do: test(unquote(label), do: unquote(block)))

  defmacro check({:all, _, clauses}, do: body) do
    drawn =
      for clause <- clauses do
        case clause do
          {:<-, _, [pattern, generator]} -> quote(do: unquote(pattern) = Shape.of(unquote(generator)))
          condition -> quote(do: true = unquote(condition))
        end
      end

    quote do
      unquote_splicing(drawn)
      unquote(body)
    end
  end
end

defmodule StreamData do
  def binary, do: Shape.of([])
  def list_of(generator), do: Shape.of(generator)
  def one_of(generators), do: Shape.of(generators)
  def string(kind), do: Shape.of(kind)
end

defmodule Benchee.Formatters.Console do
end

defmodule Benchee do
  def run(jobs, options), do: Shape.of({jobs, options})
end

defmodule Gnat.Services.Server do
  @callback request(map, String.t(), String.t() | nil) :: term
  @callback error(map, term) :: term
  defmacro __using__(_options), do: quote(do: @behaviour(Gnat.Services.Server))
end

defmodule Mox do
  # It is called while a test is compiled.
  def defmock(name, for: _behaviour), do: name
  def expect(mock, name, function), do: Shape.of({mock, name, function})
  def verify_on_exit!(context), do: Shape.of(context)
end

defmodule Oban do
  def insert(job), do: Shape.of(job)
end

defmodule Oban.Job do
  defstruct [:id, :args, :attempt]
  @type t :: %__MODULE__{}
end

defmodule Oban.Worker do
  @callback perform(struct) :: term
  @callback timeout(struct) :: term
  @callback backoff(struct) :: term
  @optional_callbacks timeout: 1, backoff: 1

  defmacro __using__(options) do
    quote do
      @behaviour Oban.Worker
      _ = unquote(options)
      def new(args, options \\ []), do: Shape.of({args, options})
    end
  end
end

defmodule Req.Request do
  defstruct [:options]
  @type t :: %__MODULE__{}
end

defmodule Req do
  def new(options), do: Shape.of(options)
  def get(request, options), do: Shape.of({request, options})
  def post(request, options), do: Shape.of({request, options})
  def put(request, options), do: Shape.of({request, options})
  def delete(request, options), do: Shape.of({request, options})
end

defmodule Argon2 do
  def hash_pwd_salt(password), do: Shape.of(password)
  def verify_pass(password, hash), do: Shape.of({password, hash})
  def no_user_verify, do: Shape.of([])
end

defmodule Phoenix.LiveComponent do
  @callback mount(struct) :: term
  @callback render(map) :: term
  @callback handle_event(String.t(), map, struct) :: term

  defmacro __using__(_options) do
    quote do
      @behaviour Phoenix.LiveComponent
      import Phoenix.Component
    end
  end
end

defmodule NimbleCSV.RFC4180 do
  def parse_stream(stream, options \\ []), do: Shape.of({stream, options})
end

defmodule Cachex.Spec do
  defmacro expiration(fields), do: quote(do: Shape.of(unquote(fields)))
  defmacro hook(fields), do: quote(do: Shape.of(unquote(fields)))
end

defmodule Cachex do
  def child_spec(arguments), do: Shape.of(arguments)
  def del(cache, key), do: Shape.of({cache, key})
  def fetch(cache, key, fallback), do: Shape.of({cache, key, fallback})
  def stats(cache), do: Shape.of(cache)
end
