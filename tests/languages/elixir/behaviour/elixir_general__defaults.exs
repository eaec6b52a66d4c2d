defmodule RenderedTest do
  use ExUnit.Case

  test "entries are limited in number and in time" do
    {:ok, clock} = Agent.start_link(fn -> 0 end)
    now = fn -> Agent.get(clock, & &1) end
    {:ok, _pid} = RegistryServer.start_link(ttl: 1_000_000, limit: 1, now: now)
    assert RegistryServer.put(:a, 1) == :ok
    assert RegistryServer.put(:a, 2) == :ok
    assert RegistryServer.put(:b, 1) == {:error, :full}
    assert RegistryServer.fetch(:a) == {:ok, 2}
    Agent.update(clock, fn _before -> 1_000_000 end)
    assert RegistryServer.fetch(:a) == :error
    assert RegistryServer.put(:b, 1) == :ok
    assert RegistryServer.count() == 1
    assert RegistryServer.delete(:b) == :ok
    assert RegistryServer.count() == 0
  end
end
