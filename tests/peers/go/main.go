// github.com/pusher/pusher-http-go, unmodified, as publisher. Writes what it saw as one JSON object.
package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"

	"github.com/pusher/pusher-http-go/v5"
)

type options struct {
	Host, AppID, Key, Secret, SocketID, Signature, Body string
}

func main() {
	var given options
	if err := json.Unmarshal([]byte(os.Args[1]), &given); err != nil {
		panic(err)
	}
	client := pusher.Client{AppID: given.AppID, Key: given.Key, Secret: given.Secret, Host: given.Host}
	saw := map[string]any{}
	tell := func(name string, value any, err error) {
		if err != nil {
			saw[name] = "error: " + err.Error()
		} else {
			saw[name] = value
		}
	}
	counts := "user_count,subscription_count"
	users, presence := "user_count", "presence-"

	tell("trigger", "ok", client.Trigger("chat", "go", map[string]string{"text": "žluť 😀"}))
	tell("exclusive", "ok", client.TriggerExclusive("chat", "not to the sender", 1, given.SocketID))
	tell("multi", "ok", client.TriggerMulti([]string{"chat", "presence-room"}, "both", 2))
	withInfo, err := client.TriggerWithParams("presence-room", "counted", 3, pusher.TriggerParams{Info: &counts})
	tell("info", withInfo, err)
	batch, err := client.TriggerBatch([]pusher.Event{
		{Channel: "chat", Name: "first", Data: 1}, {Channel: "presence-room", Name: "second", Data: 2, Info: &users},
	})
	tell("batch", batch, err)
	channels, err := client.Channels(pusher.ChannelsParams{FilterByPrefix: &presence, Info: &users})
	tell("channels", channels, err)
	channel, err := client.Channel("presence-room", pusher.ChannelParams{Info: &counts})
	tell("channel", channel, err)
	list, err := client.GetChannelUsers("presence-room")
	tell("users", list, err)
	tell("bad", "ok", client.Trigger("chat", "pusher:mine", 1))

	form := url.Values{"socket_id": {given.SocketID}, "channel_name": {"private-go"}}
	private, err := client.AuthorizePrivateChannel([]byte(form.Encode()))
	tell("private", string(private), err)
	form.Set("channel_name", "presence-go")
	member, err := client.AuthorizePresenceChannel([]byte(form.Encode()), pusher.MemberData{UserID: "9"})
	tell("presence", string(member), err)
	signin, err := client.AuthenticateUser([]byte(form.Encode()), map[string]any{"id": "9"})
	tell("signin", string(signin), err)

	header := http.Header{"X-Pusher-Key": {given.Key}, "X-Pusher-Signature": {given.Signature}}
	webhook, err := client.Webhook(header, []byte(given.Body))
	tell("webhook", webhook, err)
	header.Set("X-Pusher-Signature", given.Signature[1:]+"0")
	_, err = client.Webhook(header, []byte(given.Body))
	tell("forged webhook", "ok", err)
	_ = json.NewEncoder(os.Stdout).Encode(saw)
}
