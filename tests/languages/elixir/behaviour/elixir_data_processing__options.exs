defmodule RenderedTest do
  use ExUnit.Case

  defp rows(text), do: text |> String.split(~r/(?<=\n)/) |> OrdersCSV.rows() |> Enum.to_list()

  test "good rows are typed, bad ones named with their line" do
    header = "\uFEFFnote,TOTAL,customer_id,more\r\n"
    good = ~s("a ""quote"", and\ntwo lines",1.50,1,z\r\n)
    assert [{:ok, row}, {:error, 5, wrong}] = rows(header <> good <> "\n" <> "x,abc,,z\n")
    assert row == %{note: ~s(a "quote", and\ntwo lines), total: "1.50", customer_id: 1}
    assert %{total: "must be a decimal number", customer_id: "is empty"} == wrong
    assert [{:error, 2, "a quote is not closed"}] = rows(header <> ~s("open))
    assert [{:error, 2, "there is text after a closing quote"}] = rows(header <> ~s("a"b,1,1\n))
    assert rows(header) == []
    assert_raise ArgumentError, fn -> rows("note\n") end
  end
end
