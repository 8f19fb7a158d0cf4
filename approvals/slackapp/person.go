package slackapp

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"github.com/jobgate/jobgate/internal/access"
)

// team returns the id of the app's own workspace.
func (a *App) team(ctx context.Context) (string, error) {
	return a.teams.get("", func() (id string, err error) {
		err = a.call("auth.test", func() error {
			answer, err := a.api.AuthTestContext(ctx)
			if err == nil {
				id = answer.TeamID
			}
			return err
		})
		if err == nil && id == "" {
			err = access.Refuse(access.CodeUnavailable, "Slack does not say which workspace the app is in")
		}
		return id, err
	})
}

// approver returns who clicked, in words, if that person may answer a question. A refusal has CodeDenied; any other
// code says that it cannot be told now.
func (a *App) approver(ctx context.Context, c click, groups []string) (string, error) {
	team, err := a.team(ctx)
	if err != nil {
		return "", err
	}
	if c.team != team || (c.userTeam != "" && c.userTeam != team) {
		return "", access.Refuse(access.CodeDenied, "only members of the app's own workspace can answer")
	}
	user, err := a.member(ctx, c.user)
	if err != nil {
		return "", err
	}
	if user.ID != c.user || user.TeamID != team || !human(user) {
		return "", access.Refuse(access.CodeDenied, "only active members of the app's own workspace can answer, and no programs")
	}
	ok, err := a.inGroups(ctx, user, groups)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", access.Refuse(access.CodeDenied, notAmong(groups))
	}
	return fmt.Sprintf("%s (%s)", line(orElse(user.RealName, user.Name), maxName), user.ID), nil
}

func notAmong(groups []string) string {
	if len(groups) == 0 {
		return "the rule names no approvers, and guests of this workspace cannot answer"
	}
	return "you are not among the approvers of this question: " + line(strings.Join(groups, ", "), maxValue)
}

func (a *App) member(ctx context.Context, id string) (*slack.User, error) {
	user, err := a.users.get(id, func() (u *slack.User, err error) {
		err = a.call("users.info", func() (err error) {
			u, err = a.api.GetUserInfoContext(ctx, id)
			return err
		})
		return u, err
	})
	if access.CodeOf(err) == access.CodeNotFound {
		return nil, access.Refuse(access.CodeDenied, "Slack does not know who you are in this workspace")
	}
	return user, err
}

// human reports whether an account is an active person's. Slackbot does not say that it is a bot.
func human(u *slack.User) bool {
	program := u.IsBot || u.IsAppUser || u.IsConnectorBot || u.IsWorkflowBot || u.ID == "USLACKBOT"
	return !program && !u.Deleted && !u.IsStranger && !u.IsInvitedUser
}

// inGroups reports whether a person is in one of the groups. Emails are looked at first, because they cost no request.
func (a *App) inGroups(ctx context.Context, u *slack.User, groups []string) (bool, error) {
	if len(groups) == 0 {
		return !u.IsRestricted && !u.IsUltraRestricted, nil
	}
	for _, name := range groups {
		for _, email := range a.groups[name].Emails {
			// An email that nobody has confirmed is a name, and names prove nothing.
			if email != "" && u.IsEmailConfirmed && strings.EqualFold(email, u.Profile.Email) {
				return true, nil
			}
		}
	}
	var unknown error
	for _, name := range groups {
		for _, id := range a.groups[name].SlackUsergroups {
			members, err := a.usergroup(ctx, id)
			if err != nil {
				unknown = err
			} else if slices.Contains(members, u.ID) {
				return true, nil
			}
		}
	}
	return false, unknown
}

func (a *App) usergroup(ctx context.Context, id string) ([]string, error) {
	return a.members.get(id, func() (members []string, err error) {
		err = a.call("usergroups.users.list", func() (err error) {
			members, err = a.api.GetUserGroupMembersContext(ctx, id)
			return err
		})
		return members, err
	})
}
