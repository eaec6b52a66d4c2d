defmodule RenderedTest do
  use ExUnit.Case

  setup do
    on_exit(fn ->
      for name <- ["PORT", "DATABASE_URL"], do: System.delete_env("SERVICE_" <> name)
    end)
  end

  defp read(env), do: Config.Reader.read!(System.fetch_env!("RENDERED"), env: env)

  test "every mistake is named" do
    System.put_env("SERVICE_PORT", "70000")
    error = assert_raise RuntimeError, fn -> read(:prod) end
    assert error.message =~ "SERVICE_PORT must be from 0 to 65535"
    assert error.message =~ "SERVICE_DATABASE_URL is missing"
    assert read(:test) == []
  end

  test "what is right is typed" do
    System.put_env("SERVICE_DATABASE_URL", "ecto://db")
    assert read(:prod) == [service: [port: 4000, database_url: "ecto://db", pool_size: nil]]
  end
end
