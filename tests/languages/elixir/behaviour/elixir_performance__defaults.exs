defmodule RenderedTest do
  use ExUnit.Case
  @moduletag capture_log: true

  test "one load serves all until it lapses or makes room" do
    test = self()

    load = fn
      :bad ->
        {:error, :bad}

      :crash ->
        exit(:oh)

      key ->
        send(test, {:loading, key, self()})
        receive do: (:go -> {:ok, key})
    end

    {:ok, _pid} = ItemsCache.start_link(load: load, ttl: 60_000, limit: 2)
    callers = for _ <- 1..10, do: Task.async(fn -> ItemsCache.fetch(:a) end)
    assert_receive {:loading, :a, loader}
    send(loader, :go)
    assert Enum.all?(Task.await_many(callers), &(&1 == {:ok, :a}))
    assert ItemsCache.fetch(:a) == {:ok, :a}
    refute_received {:loading, :a, _again}

    assert ItemsCache.fetch(:bad) == {:error, :bad}
    assert {:error, {:crashed, :oh}} = ItemsCache.fetch(:crash)

    for key <- [:b, :c] do
      caller = Task.async(fn -> ItemsCache.fetch(key) end)
      assert_receive {:loading, ^key, loader}
      send(loader, :go)
      assert Task.await(caller) == {:ok, key}
    end

    assert ItemsCache.stats().size == 2
    assert ItemsCache.delete(:c) == :ok
    assert ItemsCache.stats().size == 1
  end

  test "a value lapses" do
    {:ok, _pid} = ItemsCache.start_link(load: &{:ok, {&1, make_ref()}}, ttl: 1, limit: 2)
    first = ItemsCache.fetch(:a)
    began = System.monotonic_time(:millisecond)
    wait = fn wait -> if System.monotonic_time(:millisecond) < began + 3, do: wait.(wait) end
    wait.(wait)
    assert ItemsCache.fetch(:a) != first
  end
end
